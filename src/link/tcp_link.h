// Links over TCP. Two connections make one Link: frames go over the first, heartbeats over the second, so
// that a long transfer or a long computation never looks like silence. Both ends must prove instance, epoch,
// ranks and the epoch's secret before anything else is read; who cannot is dropped without an answer, and the
// listener keeps waiting. The secret crosses the network as it is: TLS around the connections is a matter of
// the cluster's key.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "base/socket.h"
#include "link/link.h"

namespace shoal::link {

// Who we are and whom we expect at the other end.
struct Credentials {
  std::string instance;
  uint32_t epoch = 0;
  std::string secret;
  uint32_t rank = 0;
  uint32_t peer_rank = 0;
};

inline constexpr Duration kHandshakeTimeout = seconds(5);

// Tries the addresses in order, again and again until one works or the deadline passes; the Error is the last
// one met.
Result<std::unique_ptr<Link>> connect_tcp_link(const std::vector<SocketAddress>& addresses,
                                               const Credentials& credentials, TimePoint deadline,
                                               const LinkOptions& options = {});

class TcpLinkListener {
 public:
  // One port, chosen by the system, on every one of the numeric addresses.
  static Result<TcpLinkListener> open(const std::vector<std::string>& addresses);

  uint16_t port() const { return port_; }
  // Waits for the peer named by the credentials; `timeout` at the deadline. Strangers meanwhile are dropped.
  Result<std::unique_ptr<Link>> accept(const Credentials& credentials, TimePoint deadline,
                                       const LinkOptions& options = {});

 private:
  TcpLinkListener(std::vector<FileDescriptor> sockets, uint16_t port)
      : sockets_(std::move(sockets)), port_(port) {}
  std::vector<FileDescriptor> sockets_;
  uint16_t port_;
};

}  // namespace shoal::link
