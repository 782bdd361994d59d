#include "planner/shares.h"

#include <algorithm>
#include <numeric>

namespace shoal::planner {
namespace {

// Heads [first, first + count) of queries read this many kv heads.
uint32_t kv_heads_read(const LayerDemand& layer, uint32_t first, uint32_t count) {
  if (count == 0) return 0;
  uint32_t group = std::max(1u, layer.query_heads / layer.kv_heads);
  return (first + count - 1) / group - first / group + 1;
}

}  // namespace

std::vector<uint32_t> apportion(uint32_t units, std::span<const double> weights) {
  uint32_t least = units >= weights.size() ? 1 : 0;
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  // Highest averages give everyone its quota rounded down at least, so that counting may begin there.
  std::vector<uint32_t> counts;
  for (double weight : weights) counts.push_back(static_cast<uint32_t>(weight / sum * units * (1 - 1e-12)));
  if (std::any_of(counts.begin(), counts.end(), [&](uint32_t count) { return count < least; }))
    counts.assign(weights.size(), least);
  for (uint32_t left = units - std::accumulate(counts.begin(), counts.end(), 0u); left > 0; --left) {
    size_t best = 0;
    for (size_t rank = 1; rank < weights.size(); ++rank) {
      if ((counts[rank] + 1) * weights[best] < (counts[best] + 1) * weights[rank]) best = rank;
    }
    ++counts[best];
  }
  return counts;
}

std::vector<uint32_t> per_mille(std::span<const double> weights) {
  return apportion(1000, weights);
}

bool can_share(const LayerDemand& layer, uint32_t ranks) {
  return ranks == 1 || (layer.kv_heads > 0 && std::max(layer.kv_heads, layer.query_heads) >= ranks &&
                        layer.feed_forward_units >= ranks);
}

std::vector<RankPart> cut_layer(const LayerDemand& layer, std::span<const double> weights) {
  size_t ranks = weights.size();
  std::vector<RankPart> parts(ranks);
  if (ranks == 1) return parts;
  const std::vector<uint32_t> widths = apportion(layer.feed_forward_units, weights);
  const bool copies = layer.kv_heads < ranks;
  const std::vector<uint32_t> heads = apportion(copies ? layer.query_heads : layer.kv_heads, weights);
  uint32_t first = 0;
  for (size_t rank = 0; rank < ranks; ++rank) {
    RankPart& part = parts[rank];
    part.feed_forward = static_cast<double>(widths[rank]) / layer.feed_forward_units;
    if (copies) {
      double queries = heads[rank], keys = kv_heads_read(layer, first, heads[rank]);
      // Queries and outputs are as wide as the query heads, keys and values as the kv heads.
      part.attention = (queries + keys) / (layer.query_heads + layer.kv_heads);
      part.kv = keys / layer.kv_heads;
      first += heads[rank];
    } else {
      part.attention = part.kv = static_cast<double>(heads[rank]) / layer.kv_heads;
    }
    if (layer.kv_replicated) part.kv = 1;
  }
  return parts;
}

}  // namespace shoal::planner
