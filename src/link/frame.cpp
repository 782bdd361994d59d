#include "link/frame.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "link/crc32c.h"

namespace shoal::link {
namespace {

constexpr uint32_t kMagic = 0x314c4853;  // "SHL1"
constexpr size_t kCrcOffset = kHeaderBytes - 4;
constexpr int64_t kMaxGrantedUnits = int64_t{1} << 32;

int64_t cost_units(uint64_t length) {
  return static_cast<int64_t>(1 + length / BufferPool::kUnitBytes);
}

template <class T>
void put(HeaderBytes& raw, size_t offset, T value) {
  std::memcpy(raw.data() + offset, &value, sizeof(value));
}

template <class T>
T get(const HeaderBytes& raw, size_t offset) {
  T value;
  std::memcpy(&value, raw.data() + offset, sizeof(value));
  return value;
}

uint32_t header_crc(const HeaderBytes& raw) {
  return crc32c(ByteView(raw).first(kCrcOffset));
}

}  // namespace

HeaderBytes encode_header(const FrameHeader& header) {
  HeaderBytes raw{};
  put(raw, 0, kMagic);
  put(raw, 4, header.type);
  put(raw, 5, header.channel);
  put(raw, 8, header.step);
  put(raw, 16, header.sequence);
  put(raw, 20, header.length);
  put(raw, 24, header.payload_crc);
  put(raw, kCrcOffset, header_crc(raw));
  return raw;
}

Result<FrameHeader> decode_header(const HeaderBytes& raw) {
  if (get<uint32_t>(raw, 0) != kMagic) return fail(ErrorCode::malformed, "not a frame of this version");
  if (get<uint32_t>(raw, kCrcOffset) != header_crc(raw)) {
    return fail(ErrorCode::malformed, "frame header damaged: its CRC does not match");
  }
  FrameHeader header;
  auto type = get<uint8_t>(raw, 4);
  if (type < 1 || type > 3) return fail(ErrorCode::malformed, fmt::format("frame type {} is unknown", type));
  header.type = static_cast<FrameType>(type);
  header.channel = get<uint8_t>(raw, 5);
  header.step = get<uint64_t>(raw, 8);
  header.sequence = get<uint32_t>(raw, 16);
  header.length = get<uint32_t>(raw, 20);
  header.payload_crc = get<uint32_t>(raw, 24);
  if (header.channel >= kChannels) {
    return fail(ErrorCode::malformed, fmt::format("frame channel {} of {}", header.channel, kChannels));
  }
  bool carries = header.type == FrameType::data;
  if (header.length > (carries ? limits::kMaxFrameBytes : 0)) {
    return fail(ErrorCode::malformed, fmt::format("frame length {} is over the limit", header.length));
  }
  return header;
}

FrameQueues::FrameQueues(std::string peer, uint32_t window_units, Checksum checksum)
    : peer_(std::move(peer)), window_units_(window_units), checksum_(checksum) {
  SHOAL_ASSERT(window_units >= 2);
  for (Channel& channel : channels_) channel.owed = window_units;
}

bool FrameQueues::has_room(uint8_t channel) const {
  return channels_.at(channel).outgoing_units < window_units_;
}

void FrameQueues::push(Frame frame) {
  SHOAL_ASSERT(frame.channel < kChannels && has_room(frame.channel) && !closing_);
  Channel& channel = channels_[frame.channel];
  channel.outgoing_units += static_cast<uint64_t>(cost_units(frame.payload.size()));
  channel.outgoing.push_back(std::move(frame));
}

std::optional<OutgoingFrame> FrameQueues::next() {
  if (close_sent_) return std::nullopt;
  if (auto credit = next_credit()) return credit;
  for (uint8_t i = 0; i < kChannels; ++i) {
    auto index = static_cast<uint8_t>((turn_ + i) % kChannels);
    Channel& channel = channels_[index];
    if (channel.outgoing.empty()) continue;
    int64_t cost = cost_units(channel.outgoing.front().payload.size());
    if (channel.peer_window == 0 || channel.credit < std::min<int64_t>(cost, channel.peer_window / 2))
      continue;
    Frame frame = std::move(channel.outgoing.front());
    channel.outgoing.pop_front();
    channel.outgoing_units -= static_cast<uint64_t>(cost);
    channel.credit -= cost;
    turn_ = static_cast<uint8_t>((index + 1) % kChannels);
    return seal({FrameType::data, frame.channel, frame.step, 0, 0, 0}, std::move(frame.payload));
  }
  if (!closing_ || !drained()) return std::nullopt;
  close_sent_ = true;
  return seal({FrameType::close, 0, 0, 0, 0, 0}, Buffer());
}

std::optional<OutgoingFrame> FrameQueues::next_credit() {
  for (uint8_t i = 0; i < kChannels; ++i) {
    Channel& channel = channels_[i];
    if (channel.owed < window_units_ / 2) continue;
    channel.granted += static_cast<int64_t>(channel.owed);
    uint64_t units = std::exchange(channel.owed, 0);
    return seal({FrameType::credit, i, units, 0, 0, 0}, Buffer());
  }
  return std::nullopt;
}

OutgoingFrame FrameQueues::seal(FrameHeader header, Buffer payload) {
  header.sequence = send_sequence_++;
  header.length = static_cast<uint32_t>(payload.size());
  header.payload_crc = checksum_ == Checksum::of_everything ? crc32c(payload.view()) : 0;
  return {encode_header(header), std::move(payload)};
}

bool FrameQueues::drained() const {
  return std::ranges::all_of(channels_, [](const Channel& channel) { return channel.outgoing.empty(); });
}

std::unexpected<Error> FrameQueues::violated(const std::string& what) const {
  return fail(ErrorCode::malformed, fmt::format("link to {}: {}", peer_, what));
}

Result<FrameHeader> FrameQueues::open(const HeaderBytes& raw) {
  auto header = decode_header(raw);
  if (!header) return violated(header.error().message);
  if (peer_closed_) return violated("frame after goodbye");
  if (header->sequence != receive_sequence_) {
    return violated(fmt::format("frame {} came where {} was due", header->sequence, receive_sequence_));
  }
  ++receive_sequence_;
  Channel& channel = channels_[header->channel];
  if (header->type == FrameType::data) {
    int64_t cost = cost_units(header->length);
    if (channel.granted < std::min<int64_t>(cost, window_units_ / 2))
      return violated("frame sent without credit");
    channel.granted -= cost;
  }
  return header;
}

Result<> FrameQueues::deliver(const FrameHeader& header, Buffer payload) {
  Channel& channel = channels_[header.channel];
  switch (header.type) {
    case FrameType::credit:
      if (header.step > kMaxGrantedUnits ||
          channel.credit + static_cast<int64_t>(header.step) > kMaxGrantedUnits) {
        return violated(fmt::format("{} units of credit are over the limit", header.step));
      }
      channel.credit += static_cast<int64_t>(header.step);
      channel.peer_window = std::max(channel.peer_window, channel.credit);
      return {};
    case FrameType::close:
      peer_closed_ = true;
      return {};
    case FrameType::data:
      break;
  }
  if (checksum_ == Checksum::of_everything && crc32c(payload.view()) != header.payload_crc) {
    return violated(fmt::format("frame {} damaged: its CRC does not match", header.sequence));
  }
  channel.incoming.push_back({header.channel, header.step, std::move(payload)});
  return {};
}

std::optional<Frame> FrameQueues::take(uint8_t channel_index) {
  Channel& channel = channels_.at(channel_index);
  if (channel.incoming.empty()) return std::nullopt;
  Frame frame = std::move(channel.incoming.front());
  channel.incoming.pop_front();
  channel.owed += static_cast<uint64_t>(cost_units(frame.payload.size()));
  return frame;
}

}  // namespace shoal::link
