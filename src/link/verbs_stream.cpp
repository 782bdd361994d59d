#include "link/verbs_stream.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "link/crc32c.h"

namespace shoal::link {
namespace {

constexpr uint32_t kMagic = 0x31564853;  // "SHV1"
// What one call receives at most, so that the lock around it is never held for long.
constexpr size_t kMaxBytesPerCall = 4 << 20;

struct ChunkHeader {
  uint32_t magic = kMagic;
  uint32_t sequence = 0;
  uint32_t used = 0;
  uint32_t returned = 0;
  uint64_t nonce = 0;
  uint32_t zero = 0;
  uint32_t crc = 0;

  uint32_t expected_crc() const {
    return crc32c(ByteView(reinterpret_cast<const std::byte*>(this), offsetof(ChunkHeader, crc)));
  }
};
static_assert(sizeof(ChunkHeader) == 32);

}  // namespace

VerbsStream::VerbsStream(std::unique_ptr<VerbsQueue> queue, uint32_t peer_slot_count, const Nonces& nonces,
                         std::string peer, uint32_t window_units, std::shared_ptr<BufferPool> pool)
    : queue_(std::move(queue)),
      peer_slot_count_(peer_slot_count),
      nonces_(nonces),
      peer_(peer),
      queues_(std::move(peer), window_units),
      pool_(std::move(pool)) {}

std::unexpected<Error> VerbsStream::lost(ErrorCode code, const std::string& why) const {
  return fail(code, fmt::format("link to {} lost: {}", peer_, why));
}

Result<bool> VerbsStream::send_ready() {
  bool moved = false;
  while (true) {
    std::span<std::byte> slot = queue_->free_slot();
    uint32_t room = peer_room();
    if (slot.empty() || room == 0) return moved;
    // The last RECV that the peer has posted is for a chunk that returns credit.
    size_t used = room >= 2 ? fill(slot.subspan(sizeof(ChunkHeader))) : 0;
    uint32_t owed = receive_sequence_ - told_;
    if (used == 0 && owed < queue_->slot_count() / 2) return moved;
    SHOAL_TRY_VOID(post_chunk(slot, used));
    moved = true;
  }
}

// Copies what may go out next into the space; the bytes copied.
size_t VerbsStream::fill(std::span<std::byte> space) {
  size_t used = 0;
  while (used < space.size()) {
    if (!sending_) {
      sending_ = queues_.next();
      sent_ = 0;
      if (!sending_) break;
    }
    bool in_header = sent_ < kHeaderBytes;
    ByteView left = in_header ? ByteView(sending_->header).subspan(sent_)
                              : sending_->payload.view().subspan(sent_ - kHeaderBytes);
    size_t count = std::min(left.size(), space.size() - used);
    if (count != 0) std::memcpy(space.data() + used, left.data(), count);
    used += count;
    sent_ += count;
    if (sent_ == kHeaderBytes + sending_->payload.size()) sending_.reset();
  }
  return used;
}

Result<> VerbsStream::post_chunk(std::span<std::byte> slot, size_t used) {
  ChunkHeader header;
  header.sequence = send_sequence_;
  header.used = static_cast<uint32_t>(used);
  header.returned = receive_sequence_;
  header.nonce = nonces_.peer;
  header.crc = header.expected_crc();
  std::memcpy(slot.data(), &header, sizeof(header));
  if (auto sent = queue_->send_slot(sizeof(header) + used); !sent) {
    return lost(sent.error().code, sent.error().message);
  }
  ++send_sequence_;
  told_ = receive_sequence_;
  return {};
}

Result<bool> VerbsStream::receive_ready() {
  size_t total = 0;
  while (total < kMaxBytesPerCall && !queues_.peer_closed()) {
    uint32_t completed = queue_->completed_sends();
    auto received = queue_->poll();
    if (!received) return lost(received.error().code, received.error().message);
    for (const VerbsQueue::Received& one : *received) {
      SHOAL_TRY(ByteView bytes, open_chunk(one.bytes));
      SHOAL_TRY_VOID(parse(bytes));
      if (auto again = queue_->receive_again(one.slot); !again) {
        return lost(again.error().code, again.error().message);
      }
      ++receive_sequence_;  // only now: this is what we tell the peer
      total += one.bytes.size();
      if (queues_.peer_closed()) return true;
    }
    if (received->empty()) return total != 0 || queue_->completed_sends() != completed;
  }
  return total != 0;
}

Result<ByteView> VerbsStream::open_chunk(ByteView chunk) {
  ChunkHeader header;
  if (chunk.size() < sizeof(header)) {
    return lost(ErrorCode::malformed, fmt::format("a chunk of {} bytes", chunk.size()));
  }
  std::memcpy(&header, chunk.data(), sizeof(header));
  if (header.magic != kMagic || header.crc != header.expected_crc()) {
    return lost(ErrorCode::malformed, "chunk header damaged: its CRC does not match");
  }
  if (header.nonce != nonces_.own)
    return lost(ErrorCode::malformed, "a chunk that was meant for another link");
  if (header.sequence != receive_sequence_) {
    return lost(ErrorCode::unavailable,
                fmt::format("chunk {} came where {} was due: the device dropped a SEND", header.sequence,
                            receive_sequence_));
  }
  if (header.used > chunk.size() - sizeof(header)) {
    return lost(ErrorCode::malformed,
                fmt::format("{} bytes said to be in a chunk of {}", header.used, chunk.size()));
  }
  uint32_t outstanding = send_sequence_ - peer_returned_;
  if (header.returned - peer_returned_ > outstanding) {
    return lost(ErrorCode::malformed,
                fmt::format("{} RECVs returned of {}", header.returned, send_sequence_));
  }
  peer_returned_ = header.returned;
  return chunk.subspan(sizeof(header), header.used);
}

Result<> VerbsStream::parse(ByteView bytes) {
  while (!bytes.empty()) {
    if (!incoming_) {
      size_t count = std::min(bytes.size(), kHeaderBytes - raw_filled_);
      std::memcpy(raw_header_.data() + raw_filled_, bytes.data(), count);
      raw_filled_ += count;
      bytes = bytes.subspan(count);
      if (raw_filled_ < kHeaderBytes) return {};
      raw_filled_ = 0;
      SHOAL_TRY(incoming_, queues_.open(raw_header_));
      SHOAL_TRY(payload_, pool_->allocate(incoming_->length));
      filled_ = 0;
    }
    size_t count = std::min(payload_.size() - filled_, bytes.size());
    if (count != 0) std::memcpy(payload_.data() + filled_, bytes.data(), count);
    filled_ += count;
    bytes = bytes.subspan(count);
    if (filled_ < payload_.size()) return {};
    FrameHeader header = *incoming_;
    incoming_.reset();
    SHOAL_TRY_VOID(queues_.deliver(header, std::exchange(payload_, Buffer())));
  }
  return {};
}

}  // namespace shoal::link
