#include "worker/node_channel.h"

#include <array>
#include <cerrno>
#include <poll.h>
#include <thread>

#include "base/socket.h"

namespace shoal::worker {

NodeChannel::NodeChannel(FileDescriptor socket, Duration spin) : socket_(std::move(socket)), spin_(spin) {
  [[maybe_unused]] auto ignored = set_blocking(socket_.get(), false);
}

Result<std::optional<NodeMessage>> NodeChannel::receive() {
  std::array<std::byte, kLengthBytes> prefix;
  if (!fill(prefix)) return std::nullopt;
  SHOAL_TRY(uint32_t length, decode_length(prefix));
  message_.resize(length);
  if (!fill(message_)) return std::nullopt;
  SHOAL_TRY(NodeMessage message, decode_node_message(message_));
  return message;
}

bool NodeChannel::fill(std::span<std::byte> bytes) {
  TimePoint spin_end = std::chrono::steady_clock::now() + spin_;
  while (!bytes.empty()) {
    Transfer transfer = receive_some(socket_.get(), bytes);
    if (transfer.status == TransferStatus::moved) {
      bytes = bytes.subspan(transfer.bytes);
    } else if (transfer.status != TransferStatus::would_block) {
      return false;
    } else if (std::chrono::steady_clock::now() >= spin_end) {
      wait_readable(socket_.get(), TimePoint::max());
    }
  }
  return true;
}

void NodeChannel::send(const WorkerMessage& message) {
  Bytes bytes = encode(message);
  std::lock_guard lock(send_mutex_);
  for (size_t sent = 0; sent < bytes.size();) {
    iovec part{bytes.data() + sent, bytes.size() - sent};
    Transfer transfer = send_some(socket_.get(), std::span(&part, 1));
    if (transfer.status == TransferStatus::moved) {
      sent += transfer.bytes;
    } else if (transfer.status == TransferStatus::would_block) {
      pollfd waiting{socket_.get(), POLLOUT, 0};
      ::poll(&waiting, 1, -1);
    } else {
      return;
    }
  }
}

void NodeChannel::wait_for_end() {
  pollfd watched{socket_.get(), 0, 0};  // a hang-up is reported though nothing is asked for
  while (::poll(&watched, 1, -1) < 0 && errno == EINTR) {
  }
}

}  // namespace shoal::worker
