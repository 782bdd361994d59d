// Stream sockets for the data path and for local processes: numeric addresses only (nothing here asks a name
// server), non-blocking descriptors that close on exec, and transfers that tell "would block", "ended" and
// "failed" apart. No call raises SIGPIPE. Asio serves HTTP and control; this is for code that wants one
// system call per frame.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/uio.h>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/result.h"

namespace shoal {

class SocketAddress {
 public:
  // `host` is a numeric IPv4 or IPv6 address, the latter perhaps with a scope ("fe80::1%en0"); else
  // invalid_argument.
  static Result<SocketAddress> parse(std::string_view host, uint16_t port);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t size() const { return size_; }
  int family() const { return storage_.ss_family; }
  std::string text() const;  // "10.0.0.1:4000", "[::1]:4000"

 private:
  sockaddr_storage storage_{};
  socklen_t size_ = 0;
};

// All descriptors returned are non-blocking, close on exec and, for TCP, have TCP_NODELAY set.
// A port already taken is `conflict`. IPv6 listeners do not take IPv4 connections.
Result<FileDescriptor> listen_tcp(const SocketAddress& address, int backlog);
Result<uint16_t> local_port(const FileDescriptor& socket);
// Past the deadline `timeout`, refused or unreachable `unavailable`.
Result<FileDescriptor> connect_tcp(const SocketAddress& address, TimePoint deadline);
// An invalid descriptor when nobody is waiting (or the caller hung up meanwhile).
Result<FileDescriptor> accept_tcp(const FileDescriptor& listener);
// A connected pair of Unix stream sockets.
Result<std::pair<FileDescriptor, FileDescriptor>> socket_pair();

Result<> set_blocking(int fd, bool blocking);

enum class TransferStatus { moved, would_block, ended, failed };  // failed: errno says why
struct Transfer {
  TransferStatus status;
  size_t bytes = 0;
};
Transfer receive_some(int fd, std::span<std::byte> into);
Transfer receive_some(int fd, std::span<iovec> into);  // scattered, in order
Transfer send_some(int fd, std::span<iovec> from);     // gathered, in order

// Blocks until `fd` is readable (or has ended or failed), or until the deadline: false. TimePoint::max()
// waits for ever.
bool wait_readable(int fd, TimePoint deadline);
// Milliseconds until the deadline as poll() wants them: rounded up, at least 0, -1 for TimePoint::max().
int poll_milliseconds(TimePoint deadline);

}  // namespace shoal
