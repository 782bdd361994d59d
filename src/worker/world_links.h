// A rank's Links to the others of its world, made while its weights load: of every two ranks that talk one
// calls the other (RankPeers says which).
#pragma once

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "link/tcp_link.h"
#include "worker/messages.h"

namespace shoal::worker {

struct WorldLinks {
  std::unique_ptr<link::Link> previous, next;      // of a leader, where there are several stages
  std::vector<std::unique_ptr<link::Link>> group;  // [RankPeers::group]; null at the rank itself

  std::vector<link::Link*> all() const;
};

class LinkBuilder {
 public:
  // Where somebody is to call, listens and answers from now on: others may be ready long before us.
  static Result<std::unique_ptr<LinkBuilder>> listen(const LoadRequest& load);

  uint16_t port() const { return listener_ ? listener_->port() : 0; }  // 0: nobody is to call
  // Begins to call a rank. Errors: invalid_argument (not one to call, called already, a malformed address).
  Result<> call(const ConnectRequest& request);
  bool has_called_all() const { return calls_.size() == load_.peers.calls.size(); }
  // Waits for all Links. Errors: unavailable or timeout naming the rank that is not there.
  Result<WorldLinks> finish();

 private:
  using Links = std::map<uint32_t, std::unique_ptr<link::Link>>;

  explicit LinkBuilder(const LoadRequest& load) : load_(load) {}
  link::Credentials credentials(uint32_t peer_rank) const;
  Result<Links> accept_all();
  Result<Links> await_callers();

  const LoadRequest load_;
  std::optional<link::TcpLinkListener> listener_;
  std::map<uint32_t, std::future<Result<std::unique_ptr<link::Link>>>> calls_;
  std::atomic<uint32_t> awaited_ = 0;  // the rank that accept_all() waits for
  std::future<Result<Links>> callers_;
};

}  // namespace shoal::worker
