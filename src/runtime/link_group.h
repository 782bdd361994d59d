// The ranks of a tensor-parallel stage as its engine sees them, over Links to them. An engine knows its group
// while it loads; the Links may come later, before the first step.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/assert.h"
#include "engine/rank_group.h"
#include "link/collectives.h"

namespace shoal::runtime {

class LinkGroup final : public engine::RankGroup {
 public:
  // peers[r] is the Link to rank r, null at our own rank; they outlive the group.
  void join(std::vector<link::Link*> peers) {
    peers_ = peers;
    collectives_.emplace(std::move(peers));
  }
  // Ends the group for all its ranks, for one that failed on its own: they must not wait for it.
  void leave() {
    for (link::Link* peer : peers_)
      if (peer) peer->abort();
  }

  Result<> sum(std::span<float> values) override {
    SHOAL_ASSERT(collectives_.has_value());
    return collectives_->all_reduce(values);
  }
  Result<> gather(std::span<const float> mine, std::span<float> all,
                  std::span<const uint32_t> counts) override {
    SHOAL_ASSERT(collectives_.has_value());
    return collectives_->all_gather(mine, all, counts);
  }

 private:
  std::vector<link::Link*> peers_;
  std::optional<link::Collectives> collectives_;
};

}  // namespace shoal::runtime
