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
// Frames of a step are of one size for long. The payload of the next is therefore read to its place at once,
// together with its header, when it is between these sizes. Smaller ones are copied; before larger ones the
// header is read alone, since one more system call is cheaper than to allocate in vain.
constexpr size_t kSmallFrame = 1 << 10;
constexpr size_t kLargeFrame = 64 << 10;
// What is read behind a payload.
constexpr size_t kReadAhead = 60 << 10;
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
    if (!incoming_ && last_length_ >= kSmallFrame && last_length_ <= kLargeFrame) return read_expected();
  } else if (staged_begin_ != 0) {
    std::memmove(staging_->data(), staging_->data() + staged_begin_, staged_end_ - staged_begin_);
    staged_end_ -= std::exchange(staged_begin_, 0);
  }
  size_t missing = incoming_ ? payload_.size() - filled_ : 0;
  size_t ahead = std::min(kReadAhead, kStagingBytes - staged_end_);
  if (last_length_ > kLargeFrame && staged_end_ < kHeaderBytes) ahead = kHeaderBytes - staged_end_;
  std::array<iovec, 2> parts = {iovec{payload_.data() + (missing != 0 ? filled_ : 0), missing},
                                iovec{staging_->data() + staged_end_, ahead}};
  SHOAL_TRY(Share share, read_into(std::span(parts).subspan(missing == 0 ? 1 : 0)));
  size_t into_payload = std::min(missing, share.bytes);
  filled_ += into_payload;
  staged_end_ += share.bytes - into_payload;
  return share;
}

// A header, a payload as long as the last one, and what is behind it.
Result<TcpStream::Share> TcpStream::read_expected() {
  if (expected_.size() != last_length_) {
    SHOAL_TRY(expected_, pool_->allocate(last_length_));
  }
  std::array<iovec, 3> parts = {iovec{staging_->data(), kHeaderBytes},
                                iovec{expected_.data(), expected_.size()},
                                iovec{staging_->data() + kHeaderBytes, kReadAhead}};
  SHOAL_TRY(Share share, read_into(parts));
  if (share.bytes <= kHeaderBytes) {
    staged_end_ = share.bytes;
  } else {
    SHOAL_TRY_VOID(take_expected(share.bytes));
  }
  return share;
}

// Puts what read_expected() read where it belongs.
Result<> TcpStream::take_expected(size_t bytes) {
  const size_t guessed = std::min(bytes - kHeaderBytes, expected_.size());
  const size_t behind = bytes - kHeaderBytes - guessed;
  staged_begin_ = kHeaderBytes;
  staged_end_ = kHeaderBytes + behind;
  Buffer expected = std::exchange(expected_, Buffer());
  HeaderBytes raw;
  std::memcpy(raw.data(), staging_->data(), kHeaderBytes);
  SHOAL_TRY(incoming_, queues_.open(raw));
  filled_ = guessed;
  if (incoming_->length == expected.size()) {
    payload_ = std::move(expected);
    return {};
  }
  SHOAL_TRY_VOID(begin_payload());
  filled_ = std::min(guessed, payload_.size());
  if (filled_ != 0) std::memcpy(payload_.data(), expected.data(), filled_);
  const size_t surplus = guessed - filled_;  // the next frames
  std::memmove(staging_->data() + staged_begin_ + surplus, staging_->data() + staged_begin_, behind);
  std::memcpy(staging_->data() + staged_begin_, expected.data() + filled_, surplus);
  staged_end_ += surplus;
  return {};
}

Result<TcpStream::Share> TcpStream::read_into(std::span<iovec> parts) {
  Transfer transfer = receive_some(socket_.get(), parts);
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
  size_t space = 0;
  for (const iovec& part : parts) space += part.iov_len;
  return Share{transfer.bytes, transfer.bytes == space};
}

Result<> TcpStream::begin_payload() {
  SHOAL_TRY(payload_, pool_->allocate(incoming_->length));
  filled_ = 0;
  if (incoming_->type == FrameType::data) last_length_ = incoming_->length;
  return {};
}

Result<> TcpStream::parse() {
  while (true) {
    if (!incoming_) {
      if (staged_end_ - staged_begin_ < kHeaderBytes) return {};
      HeaderBytes raw;
      std::memcpy(raw.data(), staging_->data() + staged_begin_, kHeaderBytes);
      staged_begin_ += kHeaderBytes;
      SHOAL_TRY(incoming_, queues_.open(raw));
      SHOAL_TRY_VOID(begin_payload());
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
