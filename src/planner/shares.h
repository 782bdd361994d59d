// How the ranks of a stage share its layers: uneven ranks get uneven shares, in whole heads and whole pieces
// of a feed-forward's width.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planner/planner.h"

namespace shoal::planner {

// `units` among ranks so that the largest units[r] / weights[r] is as small as can be (highest averages), at
// least one each where there are enough. Ties go to the lower rank. Weights > 0.
std::vector<uint32_t> apportion(uint32_t units, std::span<const double> weights);

// Weights as shares in per mille that add up to 1000, at least 1 each.
std::vector<uint32_t> per_mille(std::span<const double> weights);

// A rank's part of a layer, as fractions of the whole.
struct RankPart {
  double attention = 1;     // of attention_bytes
  double kv = 1;            // of keys, values and states
  double feed_forward = 1;  // of what is neither attention nor replicated
};

bool can_share(const LayerDemand& layer, uint32_t ranks);

// With more ranks than kv heads a rank gets query heads and a copy of the kv heads that these read, so the
// parts add up to more than one.
std::vector<RankPart> cut_layer(const LayerDemand& layer, std::span<const double> weights);

}  // namespace shoal::planner
