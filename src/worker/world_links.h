// A rank's place in its world's ring: the Link from the rank before and the Link to the rank after.
#pragma once

#include <future>
#include <memory>
#include <vector>

#include "base/result.h"
#include "link/tcp_link.h"
#include "worker/messages.h"

namespace shoal::worker {

struct RingLinks {
  std::unique_ptr<link::Link> previous;
  std::unique_ptr<link::Link> next;
};

// Connects in both directions at once: the previous rank may call as soon as the port is known, while we
// still load.
class RingBuilder {
 public:
  static Result<std::unique_ptr<RingBuilder>> listen(const LoadRequest& load);

  uint16_t port() const { return listener_.port(); }
  // Errors: unavailable or timeout naming the rank that is not there, invalid_argument for a malformed
  // address.
  Result<RingLinks> connect(const std::vector<Endpoint>& next);

 private:
  RingBuilder(link::TcpLinkListener listener, const LoadRequest& load);
  link::Credentials credentials(uint32_t peer_rank) const;

  link::TcpLinkListener listener_;
  const LoadRequest load_;
  std::future<Result<std::unique_ptr<link::Link>>> accepted_;
};

}  // namespace shoal::worker
