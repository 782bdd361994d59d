// How the ranks of a stage share its layers: uneven ranks get uneven shares, in whole heads and whole pieces
// of a feed-forward's width.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planner/planner.h"

namespace shoal::planner {

// `units` among ranks so that the largest units[r] / weights[r] is as small as can be (highest averages), at
// least one each where there are enough. Ties go to the lower rank. Weights > 0. To choose shares by.
std::vector<uint32_t> apportion(uint32_t units, std::span<const double> weights);

// Weights as shares in per mille that add up to 1000, at least 1 each.
std::vector<uint32_t> per_mille(std::span<const double> weights);

// `units` among ranks near to their shares, as loading divides a layer (model/shard_plan.h: largest
// remainder, ties to the lower rank, at least one each where there are enough). Shares > 0.
std::vector<uint32_t> divide_units(uint32_t units, std::span<const uint32_t> shares);

// A rank's part of a layer, as fractions of the whole.
struct RankPart {
  double attention = 1;     // of attention_bytes
  double kv = 1;            // of keys, values and states
  double feed_forward = 1;  // of what is neither attention nor replicated
};

bool can_share(const LayerDemand& layer, uint32_t ranks);

// By kv heads with their query heads, or by query heads where that is clearly more even: then ranks hold
// copies of the kv heads that theirs read, and the parts add up to more than one.
std::vector<RankPart> cut_layer(const LayerDemand& layer, std::span<const uint32_t> shares);

}  // namespace shoal::planner
