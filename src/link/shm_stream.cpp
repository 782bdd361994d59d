#include "link/shm_stream.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <poll.h>

#include "base/socket.h"

namespace shoal::link {
namespace {

// What one call receives at most, so that the lock around it is never held for long.
constexpr size_t kMaxBytesPerCall = 8 << 20;

// Copied at once, so that the writer soon has room again.
constexpr size_t kLargestPiece = 64 << 10;
constexpr size_t kHalfBytes = ShmStream::kSegmentBytes / 2;

std::span<std::byte> half(const SharedSegment& segment, bool first) {
  return segment.bytes().subspan(first ? 0 : kHalfBytes, kHalfBytes);
}

}  // namespace

ShmStream::ShmStream(SharedSegment segment, ShmEnd end, FileDescriptor socket, std::string peer,
                     uint32_t window_units, std::shared_ptr<BufferPool> pool)
    : ShmStream(half(segment, end == ShmEnd::creator), half(segment, end == ShmEnd::opener),
                std::move(socket), std::move(peer), window_units, std::move(pool)) {
  segment_ = std::move(segment);
}

ShmStream::ShmStream(std::span<std::byte> outgoing, std::span<std::byte> incoming, FileDescriptor socket,
                     std::string peer, uint32_t window_units, std::shared_ptr<BufferPool> pool)
    : FrameStream(std::move(socket), peer, FrameQueues(peer, window_units, Checksum::of_headers),
                  std::move(pool)),
      writer_(outgoing),
      reader_(incoming) {}

Result<bool> ShmStream::send_ready() {
  bool moved = false;
  while (true) {
    if (!sending_) {
      sending_ = queues_.next();
      sent_ = 0;
      if (!sending_) break;
    }
    auto appended = append_frame();
    if (!appended) return broken(appended.error());
    moved = moved || *appended;
    if (sent_ != kHeaderBytes + sending_->payload.size()) break;
    sending_.reset();
  }
  if (moved && writer_.must_ring()) ring();
  return moved;
}

Result<bool> ShmStream::append_frame() {
  const size_t before = sent_;
  if (sent_ < kHeaderBytes) {
    SHOAL_TRY(size_t taken, writer_.append(ByteView(sending_->header).subspan(sent_)));
    sent_ += taken;
  }
  if (sent_ >= kHeaderBytes) {
    SHOAL_TRY(size_t taken, writer_.append(sending_->payload.view().subspan(sent_ - kHeaderBytes)));
    sent_ += taken;
  }
  writer_.publish();
  return sent_ != before;
}

Result<bool> ShmStream::receive_ready() {
  if (bell_rang_) SHOAL_TRY_VOID(listen_to_bell());
  size_t total = 0;
  while (!ended_ && total < kMaxBytesPerCall) {
    auto available = reader_.available();
    if (!available) return broken(available.error());
    SHOAL_TRY(size_t read, read_part(*available));
    if (read == 0) break;
    total += read;
  }
  if (total != 0 && reader_.must_ring()) ring();
  // The peer wrote all it had to say before its end.
  if (peer_gone_ && !ended_ && total == 0) SHOAL_TRY_VOID(meet_end());
  return total != 0 || ended_;
}

// Copies a header and a piece of its payload out of the ring; how many bytes.
Result<size_t> ShmStream::read_part(size_t available) {
  size_t read = 0;
  if (!incoming_) {
    if (available < kHeaderBytes) return 0;
    HeaderBytes raw;
    reader_.read(raw);
    read = kHeaderBytes;
    SHOAL_TRY(incoming_, queues_.open(raw));
    SHOAL_TRY(payload_, pool_->allocate(incoming_->length));
    filled_ = 0;
  }
  const size_t piece = std::min({available - read, payload_.size() - filled_, kLargestPiece});
  if (piece != 0) reader_.read(payload_.bytes().subspan(filled_, piece));
  filled_ += piece;
  if (filled_ == payload_.size()) {
    const FrameHeader header = *std::exchange(incoming_, std::nullopt);
    SHOAL_TRY_VOID(queues_.deliver(header, std::exchange(payload_, Buffer())));
  }
  return read + piece;
}

std::unexpected<Error> ShmStream::broken(const Error& error) const {
  return fail(error.code, fmt::format("link to {}: {}", peer_, error.message));
}

// What is on the socket: bells, and perhaps its end.
Result<> ShmStream::listen_to_bell() {
  std::array<std::byte, 256> bells;
  bell_rang_ = false;
  Transfer transfer = receive_some(socket_.get(), bells);
  while (transfer.status == TransferStatus::moved) transfer = receive_some(socket_.get(), bells);
  if (transfer.status == TransferStatus::failed) return lost(std::strerror(errno));
  if (transfer.status == TransferStatus::ended) peer_gone_ = true;
  return {};
}

void ShmStream::ring() {
  std::byte bell{1};
  iovec part{&bell, 1};
  send_some(socket_.get(),
            std::span(&part, 1));  // a full socket has bells enough; a broken one tells by poll()
}

std::optional<short> ShmStream::watch(Interest interest) {
  auto idle = Result<bool>(true);
  if (wants_to_write()) idle = writer_.may_sleep();
  if (idle && *idle && interest == Interest::everything) idle = reader_.may_sleep();
  if (!idle || !*idle) return std::nullopt;  // the next look at the ring meets the Error
  return static_cast<short>(interest == Interest::everything || wants_to_write() ? POLLIN : 0);
}

}  // namespace shoal::link
