#include "planner/shares.h"

#include <algorithm>
#include <numeric>

namespace shoal::planner {
namespace {

constexpr double kClearlyMoreEven = 1.1;

// Heads of each rank, and the kv heads that these read.
struct HeadCounts {
  std::vector<uint32_t> queries, keys;

  // Queries and outputs are as wide as the query heads, keys and values as the kv heads.
  double slowest(std::span<const uint32_t> shares) const {
    double slowest = 0;
    for (size_t rank = 0; rank < shares.size(); ++rank)
      slowest = std::max(slowest, static_cast<double>(queries[rank] + keys[rank]) / shares[rank]);
    return slowest;
  }
};

HeadCounts heads_of(const LayerDemand& layer, std::span<const uint32_t> shares) {
  const uint32_t group = std::max(1u, layer.query_heads / layer.kv_heads);
  HeadCounts by_keys, by_queries;
  by_keys.keys = divide_units(layer.kv_heads, shares);
  for (uint32_t keys : by_keys.keys) by_keys.queries.push_back(keys * group);
  by_queries.queries = divide_units(layer.query_heads, shares);
  uint32_t first = 0;
  for (uint32_t queries : by_queries.queries) {
    const uint32_t end = first + queries;
    by_queries.keys.push_back(queries == 0 ? 0 : (end + group - 1) / group - first / group);
    first = end;
  }
  const bool keys_will_do = by_keys.slowest(shares) <= kClearlyMoreEven * by_queries.slowest(shares);
  return keys_will_do ? by_keys : by_queries;
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

std::vector<uint32_t> divide_units(uint32_t units, std::span<const uint32_t> shares) {
  const uint64_t total = std::accumulate(shares.begin(), shares.end(), uint64_t{0});
  std::vector<uint32_t> counts;
  std::vector<std::pair<uint64_t, size_t>> by_remainder;  // what is missing from a whole unit
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    counts.push_back(static_cast<uint32_t>(uint64_t{units} * shares[rank] / total));
    by_remainder.emplace_back(total - uint64_t{units} * shares[rank] % total, rank);
  }
  std::sort(by_remainder.begin(), by_remainder.end());
  uint32_t left = units - std::accumulate(counts.begin(), counts.end(), 0u);
  for (uint32_t i = 0; i < left; ++i) ++counts[by_remainder[i].second];
  if (units < shares.size()) return counts;
  for (uint32_t& count : counts) {
    if (count != 0) continue;
    --*std::max_element(counts.begin(), counts.end());
    count = 1;
  }
  return counts;
}

bool can_share(const LayerDemand& layer, uint32_t ranks) {
  return ranks == 1 || layer.feed_forward_units > 0;
}

std::vector<RankPart> cut_layer(const LayerDemand& layer, std::span<const uint32_t> shares) {
  const size_t ranks = shares.size();
  std::vector<RankPart> parts(ranks);
  if (ranks == 1) return parts;
  const std::vector<uint32_t> widths = divide_units(layer.feed_forward_units, shares);
  for (size_t rank = 0; rank < ranks; ++rank)
    parts[rank].feed_forward = static_cast<double>(widths[rank]) / layer.feed_forward_units;
  if (layer.query_heads == 0 || layer.kv_heads == 0) return parts;
  const HeadCounts heads = heads_of(layer, shares);
  for (size_t rank = 0; rank < ranks; ++rank) {
    parts[rank].attention =
        static_cast<double>(heads.queries[rank] + heads.keys[rank]) / (layer.query_heads + layer.kv_heads);
    if (!layer.kv_replicated) parts[rank].kv = static_cast<double>(heads.keys[rank]) / layer.kv_heads;
  }
  return parts;
}

}  // namespace shoal::planner
