#include "base/socket.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

namespace shoal {
namespace {

#ifdef MSG_NOSIGNAL
constexpr int kSendFlags = MSG_NOSIGNAL;
#else
constexpr int kSendFlags = 0;  // SO_NOSIGPIPE is set on every socket instead
#endif

Result<> prepare(int fd, bool tcp) {
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return fail_errno("cannot prepare", "socket");
  SHOAL_TRY_VOID(set_blocking(fd, false));
  int on = 1;
#ifdef SO_NOSIGPIPE
  ::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
  if (tcp) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return {};
}

Result<FileDescriptor> open_tcp(int family) {
  FileDescriptor fd(::socket(family, SOCK_STREAM, 0));
  if (!fd.valid()) return fail_errno("cannot create", "TCP socket");
  SHOAL_TRY_VOID(prepare(fd.get(), true));
  return fd;
}

std::unexpected<Error> fail_connect(int number, const SocketAddress& address) {
  ErrorCode code = number == ETIMEDOUT ? ErrorCode::timeout : ErrorCode::unavailable;
  return fail(code, fmt::format("cannot connect to {}: {}", address.text(), std::strerror(number)));
}

Transfer transfer_result(ssize_t moved) {
  if (moved > 0) return {TransferStatus::moved, static_cast<size_t>(moved)};
  if (moved == 0) return {TransferStatus::ended};
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return {TransferStatus::would_block};
  return {TransferStatus::failed};
}

}  // namespace

Result<SocketAddress> SocketAddress::parse(std::string_view host, uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  std::string name(host);
  // getaddrinfo takes "10.1" for 10.0.0.1; nobody who writes that here means it.
  in_addr four_parts;
  bool whole = name.find(':') != std::string::npos || ::inet_pton(AF_INET, name.c_str(), &four_parts) == 1;
  if (!whole || ::getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a numeric IPv4 or IPv6 address", host));
  }
  SocketAddress address;
  std::memcpy(&address.storage_, found->ai_addr, found->ai_addrlen);
  address.size_ = found->ai_addrlen;
  ::freeaddrinfo(found);
  return address;
}

std::string SocketAddress::text() const {
  char host[NI_MAXHOST] = {};
  char port[NI_MAXSERV] = {};
  if (::getnameinfo(get(), size_, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) !=
      0) {
    return "unknown address";
  }
  return family() == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<> set_blocking(int fd, bool blocking) {
  int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return fail_errno("cannot prepare", "socket");
  flags = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
  if (::fcntl(fd, F_SETFL, flags) != 0) return fail_errno("cannot prepare", "socket");
  return {};
}

Result<FileDescriptor> listen_tcp(const SocketAddress& address, int backlog) {
  SHOAL_TRY(FileDescriptor fd, open_tcp(address.family()));
  int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address.family() == AF_INET6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  if (::bind(fd.get(), address.get(), address.size()) != 0 || ::listen(fd.get(), backlog) != 0) {
    ErrorCode code = errno == EADDRINUSE ? ErrorCode::conflict : ErrorCode::io;
    return fail(code, fmt::format("cannot listen on {}: {}", address.text(), std::strerror(errno)));
  }
  return fd;
}

Result<uint16_t> local_port(const FileDescriptor& socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    return fail_errno("cannot read the address of", "socket");
  }
  if (storage.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

Result<FileDescriptor> connect_tcp(const SocketAddress& address, TimePoint deadline) {
  SHOAL_TRY(FileDescriptor fd, open_tcp(address.family()));
  if (::connect(fd.get(), address.get(), address.size()) == 0) return fd;
  if (errno != EINPROGRESS && errno != EINTR) return fail_connect(errno, address);
  pollfd waiting{fd.get(), POLLOUT, 0};
  while (true) {
    int ready = ::poll(&waiting, 1, poll_milliseconds(deadline));
    if (ready > 0) break;
    if (ready == 0) return fail_connect(ETIMEDOUT, address);
    if (errno != EINTR) return fail_connect(errno, address);
  }
  int number = 0;
  socklen_t size = sizeof(number);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &number, &size) != 0) number = errno;
  if (number != 0) return fail_connect(number, address);
  return fd;
}

Result<FileDescriptor> accept_tcp(const FileDescriptor& listener) {
  FileDescriptor fd(::accept(listener.get(), nullptr, nullptr));
  if (!fd.valid()) {
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED) return fd;
    return fail_errno("cannot accept on", "socket");
  }
  SHOAL_TRY_VOID(prepare(fd.get(), true));
  return fd;
}

Result<std::pair<FileDescriptor, FileDescriptor>> socket_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return fail_errno("cannot create", "socket pair");
  std::pair<FileDescriptor, FileDescriptor> pair{FileDescriptor(fds[0]), FileDescriptor(fds[1])};
  SHOAL_TRY_VOID(prepare(fds[0], false));
  SHOAL_TRY_VOID(prepare(fds[1], false));
  return pair;
}

Transfer receive_some(int fd, std::span<std::byte> into) {
  return transfer_result(::recv(fd, into.data(), into.size(), 0));
}

Transfer receive_some(int fd, std::span<iovec> into) {
  msghdr message{};
  message.msg_iov = into.data();
  message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(into.size());
  return transfer_result(::recvmsg(fd, &message, 0));
}

Transfer send_some(int fd, std::span<iovec> from) {
  msghdr message{};
  message.msg_iov = from.data();
  message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(from.size());
  return transfer_result(::sendmsg(fd, &message, kSendFlags));
}

bool wait_readable(int fd, TimePoint deadline) {
  pollfd waiting{fd, POLLIN, 0};
  while (true) {
    int ready = ::poll(&waiting, 1, poll_milliseconds(deadline));
    if (ready > 0) return true;
    if (ready == 0 && std::chrono::steady_clock::now() >= deadline) return false;
    if (ready < 0 && errno != EINTR) return true;  // let the read find out
  }
}

int poll_milliseconds(TimePoint deadline) {
  if (deadline == TimePoint::max()) return -1;
  Duration left = deadline - std::chrono::steady_clock::now();
  if (left <= Duration::zero()) return 0;
  auto rounded = std::chrono::ceil<milliseconds>(left).count();
  return static_cast<int>(std::min<int64_t>(rounded, INT_MAX));
}

}  // namespace shoal
