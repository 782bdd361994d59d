#include "link/tcp_stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <poll.h>

#include "base/socket.h"

namespace shoal::link {
namespace {
// What one call receives at most, so that the lock around it is never held for long.
constexpr size_t kMaxBytesPerCall = 8 << 20;
// Behind a frame of this size only the header of the next is read ahead, so that its payload, likely as
// large, goes straight to its place: one more system call is cheaper than a copy.
constexpr size_t kLargeFrame = 32 << 10;
}  // namespace

TcpStream::TcpStream(FileDescriptor socket, std::string peer, uint32_t window_units,
                     std::shared_ptr<BufferPool> pool)
    : FrameStream(std::move(socket), peer, FrameQueues(peer, window_units), std::move(pool)),
      staging_(std::make_unique_for_overwrite<std::array<std::byte, kStagingBytes>>()) {}

Result<bool> TcpStream::send_ready() {
  bool moved = false;
  while (true) {
    if (!sending_) {
      sending_ = queues_.next();
      sent_ = 0;
      if (!sending_) return moved;
    }
    size_t payload_sent = sent_ > kHeaderBytes ? sent_ - kHeaderBytes : 0;
    size_t header_sent = std::min(sent_, kHeaderBytes);
    std::array<iovec, 2> parts = {
        iovec{sending_->header.data() + header_sent, kHeaderBytes - header_sent},
        iovec{sending_->payload.data() + payload_sent, sending_->payload.size() - payload_sent}};
    Transfer transfer = send_some(socket_.get(), parts);
    if (transfer.status == TransferStatus::would_block) return moved;
    if (transfer.status != TransferStatus::moved) return lost(std::strerror(errno));
    moved = true;
    sent_ += transfer.bytes;
    if (sent_ == kHeaderBytes + sending_->payload.size()) sending_.reset();
  }
}

Result<bool> TcpStream::receive_ready() {
  size_t total = 0;
  while (!ended_ && total < kMaxBytesPerCall) {
    SHOAL_TRY(Share got, read_some());
    if (got.bytes == 0) break;
    total += got.bytes;
    SHOAL_TRY_VOID(parse());
    if (!got.perhaps_more) break;
  }
  return total != 0 || ended_;
}

// Reads into the open frame's payload first and, behind it, into the staging area. No bytes: nothing there
// now, or the end.
Result<TcpStream::Share> TcpStream::read_some() {
  if (staged_begin_ == staged_end_) {
    staged_begin_ = staged_end_ = 0;
  } else if (staged_begin_ != 0) {
    std::memmove(staging_->data(), staging_->data() + staged_begin_, staged_end_ - staged_begin_);
    staged_end_ -= std::exchange(staged_begin_, 0);
  }
  size_t missing = incoming_ ? payload_.size() - filled_ : 0;
  size_t staged = kStagingBytes - staged_end_;
  if (last_length_ >= kLargeFrame && staged_end_ < kHeaderBytes) staged = kHeaderBytes - staged_end_;
  std::array<iovec, 2> parts = {iovec{payload_.data() + (missing != 0 ? filled_ : 0), missing},
                                iovec{staging_->data() + staged_end_, staged}};
  Transfer transfer = receive_some(socket_.get(), std::span(parts).subspan(missing == 0 ? 1 : 0));
  switch (transfer.status) {
    case TransferStatus::would_block:
      return Share{};
    case TransferStatus::failed:
      return lost(std::strerror(errno));
    case TransferStatus::ended:
      SHOAL_TRY_VOID(meet_end());
      return Share{};
    case TransferStatus::moved:
      break;
  }
  size_t into_payload = std::min(missing, transfer.bytes);
  filled_ += into_payload;
  staged_end_ += transfer.bytes - into_payload;
  return Share{transfer.bytes, transfer.bytes == missing + staged};
}

Result<> TcpStream::parse() {
  while (true) {
    if (!incoming_) {
      if (staged_end_ - staged_begin_ < kHeaderBytes) return {};
      HeaderBytes raw;
      std::memcpy(raw.data(), staging_->data() + staged_begin_, kHeaderBytes);
      staged_begin_ += kHeaderBytes;
      SHOAL_TRY(incoming_, queues_.open(raw));
      SHOAL_TRY(payload_, pool_->allocate(incoming_->length));
      if (incoming_->type == FrameType::data) last_length_ = incoming_->length;
      filled_ = 0;
    }
    size_t take = std::min(payload_.size() - filled_, staged_end_ - staged_begin_);
    if (take != 0) std::memcpy(payload_.data() + filled_, staging_->data() + staged_begin_, take);
    filled_ += take;
    staged_begin_ += take;
    if (filled_ < payload_.size()) return {};
    SHOAL_TRY_VOID(finish_frame());
  }
}

Result<> TcpStream::finish_frame() {
  FrameHeader header = *incoming_;
  incoming_.reset();
  return queues_.deliver(header, std::exchange(payload_, Buffer()));
}

std::optional<short> TcpStream::watch(Interest interest) {
  const int incoming = interest == Interest::everything ? POLLIN : 0;
  return static_cast<short>(incoming | (wants_to_write() ? POLLOUT : 0));
}

}  // namespace shoal::link
