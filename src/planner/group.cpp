#include "planner/group.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace shoal::planner {
namespace {

uint64_t part_of(uint64_t bytes, double part) {
  return part >= 1 ? bytes : static_cast<uint64_t>(std::ceil(static_cast<double>(bytes) * part));
}

uint64_t feed_forward_bytes(const LayerDemand& layer) {
  return layer.weight_bytes - layer.attention_bytes - layer.replicated_bytes;
}

uint64_t rank_memory_bytes(const LayerKind& kind, const RankPart& part) {
  const LayerDemand& layer = kind.demand;
  return part_of(kind.kept_bytes, part.kv) + layer.replicated_bytes +
         part_of(layer.attention_bytes, part.attention) +
         part_of(feed_forward_bytes(layer), part.feed_forward);
}

// How much of all layers each rank could hold, as weights. 0 where it could hold nothing.
std::vector<double> memory_weights(const Problem& problem, const std::vector<uint16_t>& members) {
  uint32_t layers = problem.layer_count();
  double whole = 0, replicated = 0;
  for (uint16_t kind : problem.kind_of) {
    const LayerKind& layer = problem.kinds[kind];
    double copied = static_cast<double>(layer.demand.replicated_bytes) +
                    (layer.demand.kv_replicated ? static_cast<double>(layer.kept_bytes) : 0);
    replicated += copied;
    whole += static_cast<double>(layer.memory_bytes()) - copied;
  }
  std::vector<double> weights;
  for (uint16_t member : members) {
    double left = static_cast<double>(problem.classes[member].figures.free_memory_bytes) -
                  static_cast<double>(problem.end_bytes(0, layers, 1)) - replicated;
    weights.push_back(std::max(0.0, left) / std::max(1.0, whole));
  }
  return weights;
}

// Speeds, but no more of the whole than a rank can hold; plain memory when all of them together cannot.
void hold_within(std::vector<double>& weights, const std::vector<double>& most) {
  if (std::accumulate(most.begin(), most.end(), 0.0) <= 1) {
    weights = most;
    return;
  }
  std::vector<bool> full(weights.size(), false);
  double left = 1;
  for (bool changed = true; changed;) {
    changed = false;
    double open = 0;
    for (size_t rank = 0; rank < weights.size(); ++rank)
      if (!full[rank]) open += weights[rank];
    for (size_t rank = 0; rank < weights.size(); ++rank) {
      if (full[rank] || weights[rank] / open * left <= most[rank]) continue;
      full[rank] = changed = true;
    }
    if (!changed) {
      for (size_t rank = 0; rank < weights.size(); ++rank)
        weights[rank] = full[rank] ? most[rank] : weights[rank] / open * left;
    } else {
      left = 1;
      for (size_t rank = 0; rank < weights.size(); ++rank)
        if (full[rank]) left -= most[rank];
      changed = left > 0;
    }
  }
}

std::vector<uint32_t> choose_shares(const Problem& problem, const std::vector<uint16_t>& members,
                                    ShareBy share_by) {
  std::vector<double> weights;
  for (uint16_t member : members) {
    const Device& device = problem.classes[member].figures;
    weights.push_back(share_by == ShareBy::prefill_speed ? device.prefill_flops_per_second
                                                         : device.decode_bytes_per_second);
  }
  if (share_by == ShareBy::memory) weights = memory_weights(problem, members);
  if (share_by == ShareBy::speed_within_memory) hold_within(weights, memory_weights(problem, members));
  double most = *std::max_element(weights.begin(), weights.end());
  if (!(most > 0)) return {};
  for (double& weight : weights) weight = std::max(weight, most * 1e-3);
  const uint32_t heads = problem.kinds[problem.kind_of.back()].demand.kv_heads;
  if (share_by == ShareBy::whole_heads && heads >= members.size()) {
    const std::vector<uint32_t> counts = apportion(heads, weights);
    weights.assign(counts.begin(), counts.end());
  }
  return per_mille(weights);
}

Path worst_path(const Problem& problem, const std::vector<uint16_t>& members) {
  Path worst{0, 0, INFINITY, LinkKind::unknown};
  for (size_t from = 0; from < members.size(); ++from) {
    for (size_t to = 0; to < members.size(); ++to) {
      if (from == to) continue;
      const Path& path = problem.path(members[from], members[to]);
      if (path.one_way_seconds + path.tail_seconds >= worst.one_way_seconds + worst.tail_seconds)
        worst.kind = path.kind;
      worst.one_way_seconds = std::max(worst.one_way_seconds, path.one_way_seconds);
      worst.tail_seconds = std::max(worst.tail_seconds, path.tail_seconds);
      worst.bytes_per_second = std::min(worst.bytes_per_second, path.bytes_per_second);
    }
  }
  return worst;
}

void find_reach(const Problem& problem, Group& group) {
  uint32_t layers = problem.layer_count();
  auto fits = [&](uint32_t first, uint32_t end) {
    for (uint32_t rank = 0; rank < group.ranks(); ++rank) {
      if (group.memory_bytes(problem, rank, first, end) >
          problem.classes[group.members[rank]].figures.free_memory_bytes)
        return false;
    }
    return true;
  };
  group.furthest.resize(layers);
  group.reaches_last.resize(layers);
  uint32_t end = 1;
  for (uint32_t first = 0; first < layers; ++first) {
    end = std::max(end, first);
    if (first == 0) end = 0;
    while (end + 1 < layers && fits(first, end + 1)) ++end;
    group.furthest[first] = static_cast<uint16_t>(end);
    group.reaches_last[first] = fits(first, layers) ? 1 : 0;
  }
}

}  // namespace

uint64_t Group::memory_bytes(const Problem& problem, uint32_t rank, uint32_t first_layer,
                             uint32_t end_layer) const {
  return memory_before[rank][end_layer] - memory_before[rank][first_layer] +
         problem.end_bytes(first_layer, end_layer, share(rank));
}

std::optional<Group> make_group(const Problem& problem, std::vector<uint16_t> members, ShareBy share_by) {
  // The fastest leads: it also embeds and samples.
  std::sort(members.begin(), members.end(), [&](uint16_t a, uint16_t b) {
    const double fast = problem.classes[a].figures.decode_bytes_per_second;
    const double other = problem.classes[b].figures.decode_bytes_per_second;
    return fast != other ? fast > other : a < b;
  });
  std::vector<uint32_t> shares = choose_shares(problem, members, share_by);
  if (shares.empty()) return std::nullopt;
  return make_group(problem, std::move(members), std::move(shares));
}

std::optional<Group> make_group(const Problem& problem, std::vector<uint16_t> members,
                                std::vector<uint32_t> shares) {
  Group group;
  group.members = std::move(members);
  group.shares = std::move(shares);
  for (const LayerKind& kind : problem.kinds)
    if (!can_share(kind.demand, group.ranks())) return std::nullopt;
  for (const LayerKind& kind : problem.kinds) group.parts.push_back(cut_layer(kind.demand, group.shares));
  group.slowest = worst_path(problem, group.members);
  for (uint32_t rank = 0; rank < group.ranks(); ++rank) {
    std::vector<uint64_t> of_kind;
    for (size_t kind = 0; kind < problem.kinds.size(); ++kind)
      of_kind.push_back(rank_memory_bytes(problem.kinds[kind], group.parts[kind][rank]));
    std::vector<uint64_t>& before = group.memory_before.emplace_back(1, 0);
    for (uint16_t kind : problem.kind_of) before.push_back(before.back() + of_kind[kind]);
  }
  find_reach(problem, group);
  for (uint32_t first = 0; first < problem.layer_count(); ++first)
    if (group.furthest[first] > first || group.reaches_last[first] != 0) return group;
  return std::nullopt;
}

double rank_layer_seconds(const Problem& problem, const Group& group, uint32_t rank, uint32_t kind,
                          double rows) {
  const LayerDemand& layer = problem.kinds[kind].demand;
  const Device& device = problem.classes[group.members[rank]].figures;
  const RankPart& part = group.parts[kind][rank];
  double active = active_bytes(layer, rows);
  double replicated = std::min(active, static_cast<double>(layer.replicated_bytes));
  double attention = std::min(active - replicated, static_cast<double>(layer.attention_bytes));
  double bytes =
      replicated + attention * part.attention + (active - replicated - attention) * part.feed_forward;
  // A row's arithmetic is spread over the bytes that it reads.
  double row_bytes = active_bytes(layer, 1), used = 1;
  if (row_bytes > 0 && group.ranks() > 1) {
    double rest = std::max(0.0, row_bytes - replicated - attention);
    used = (replicated + attention * part.attention + rest * part.feed_forward) / row_bytes;
  }
  double flops = rows * static_cast<double>(layer.flops_per_token) * used;
  return std::max(bytes / device.decode_bytes_per_second, flops / device.prefill_flops_per_second) +
         device.layer_fixed_seconds;
}

double rank_head_seconds(const Problem& problem, const Group& group, uint32_t rank, double rows) {
  const Device& device = problem.classes[group.members[rank]].figures;
  return group.share(rank) *
         std::max(static_cast<double>(problem.head_bytes) / device.decode_bytes_per_second,
                  rows * problem.head_flops / device.prefill_flops_per_second);
}

double all_reduce_seconds(const Problem& problem, const Group& group, uint32_t kind, double rows) {
  if (group.ranks() == 1) return 0;
  return problem.kinds[kind].demand.all_reduces *
         all_reduce_seconds(group.slowest, group.ranks(), rows * problem.hidden_bytes);
}

double layer_seconds(const Problem& problem, const Group& group, uint32_t kind, double rows) {
  double slowest = 0;
  for (uint32_t rank = 0; rank < group.ranks(); ++rank)
    slowest = std::max(slowest, rank_layer_seconds(problem, group, rank, kind, rows));
  return slowest + all_reduce_seconds(problem, group, kind, rows);
}

double head_seconds(const Problem& problem, const Group& group, double rows) {
  double slowest = 0;
  for (uint32_t rank = 0; rank < group.ranks(); ++rank)
    slowest = std::max(slowest, rank_head_seconds(problem, group, rank, rows));
  return slowest + all_gather_seconds(group.slowest, group.ranks(), rows * problem.logits_bytes);
}

double stage_seconds(const Problem& problem, const Group& group, uint32_t first_layer, uint32_t end_layer,
                     Pass pass) {
  std::vector<uint32_t> counts(problem.kinds.size(), 0);
  for (uint32_t layer = first_layer; layer < end_layer; ++layer) ++counts[problem.kind_of[layer]];
  double seconds = 0;
  for (uint32_t kind = 0; kind < counts.size(); ++kind)
    if (counts[kind] > 0) seconds += counts[kind] * layer_seconds(problem, group, kind, pass.rows);
  if (end_layer == problem.layer_count()) seconds += head_seconds(problem, group, pass.output_rows);
  return seconds;
}

Hop hop(const Problem& problem, const Group& from, const Group& to, double rows) {
  double bytes = rows * problem.wire_row_bytes();
  Hop worst;
  for (uint16_t receiver : to.members) {
    Hop best{INFINITY, 0, LinkKind::unknown};
    for (uint16_t sender : from.members) {
      const Path& path = problem.path(sender, receiver);
      double seconds = message_seconds(path, bytes);
      if (seconds < best.seconds) best = {seconds, bytes / path.bytes_per_second, path.kind};
    }
    if (best.seconds > worst.seconds) worst.seconds = best.seconds, worst.kind = best.kind;
    worst.busy_seconds = std::max(worst.busy_seconds, best.busy_seconds);
  }
  return worst;
}

double return_seconds(const Problem& problem, const Group& last, const Group& first) {
  return latency_seconds(problem.path(last.members[0], first.members[0]), 1);
}

}  // namespace shoal::planner
