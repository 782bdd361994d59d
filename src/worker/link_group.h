// The ranks of our stage as its engine sees them, over the Links to them. The engine knows it while it loads;
// the Links come later, before the first step.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/assert.h"
#include "engine/rank_group.h"
#include "link/collectives.h"

namespace shoal::worker {

class LinkGroup final : public engine::RankGroup {
 public:
  // links[r]: to rank r of the group; null at our own place.
  void join(const std::vector<std::unique_ptr<link::Link>>& links) {
    std::vector<link::Link*> peers;
    for (const auto& link : links) peers.push_back(link.get());
    if (peers.size() > 1) collectives_.emplace(std::move(peers));
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
  std::optional<link::Collectives> collectives_;
};

}  // namespace shoal::worker
