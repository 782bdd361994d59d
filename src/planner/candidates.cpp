#include "planner/candidates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

namespace shoal::planner {
namespace {

constexpr size_t kMostSets = 512;
constexpr size_t kMostSetsOfMany = 128;

constexpr size_t kMostLikely = 192;
constexpr double kNearFactor = 2;  // slower links than so many times the best one's are not near

using Members = std::vector<uint16_t>;

// All multisets of classes with 2 to 8 members, by recursion; false when there are more than `most`.
bool list_sets(const Problem& problem, size_t next, size_t most, Members& members,
               std::vector<Members>& sets) {
  if (next == problem.classes.size()) {
    if (members.size() < 2) return true;
    if (sets.size() == most) return false;
    sets.push_back(members);
    return true;
  }
  size_t before = members.size();
  bool all = list_sets(problem, next + 1, most, members, sets);
  for (uint32_t taken = 0; all && taken < problem.classes[next].count() && members.size() < kMostRanks;
       ++taken) {
    members.push_back(static_cast<uint16_t>(next));
    all = list_sets(problem, next + 1, most, members, sets);
  }
  members.resize(before);
  return all;
}

// The devices of all classes but one device of `seed`, in the order of `before(a, b)`.
template <class Before>
Members companions(const Problem& problem, uint16_t seed, Before before) {
  Members order(problem.classes.size());
  std::iota(order.begin(), order.end(), uint16_t{0});
  std::sort(order.begin(), order.end(),
            [&](uint16_t a, uint16_t b) { return before(a, b) || (!before(b, a) && a < b); });
  Members devices;
  for (uint16_t c : order) {
    uint32_t count = problem.classes[c].count() - (c == seed ? 1 : 0);
    for (uint32_t taken = 0; taken < std::min(count, kMostRanks); ++taken) devices.push_back(c);
  }
  return devices;
}

void add_prefixes(uint16_t seed, const Members& order, std::set<Members>& sets) {
  Members members = {seed};
  for (uint16_t next : order) {
    if (members.size() == kMostRanks) return;
    members.push_back(next);
    Members sorted = members;
    std::sort(sorted.begin(), sorted.end());
    sets.insert(std::move(sorted));
  }
}

// Rows of a pass that the objective is about.
double usual_rows(const PlanOptions& options) {
  switch (options.objective) {
    case Objective::latency:
      return 1;
    case Objective::throughput:
      return std::max(1.0, options.concurrency / 2.0);
    case Objective::ttft:
      return std::min(options.prompt_tokens, options.prefill_chunk_tokens);
  }
  return 1;
}

// Devices in order of speed, in runs of equal length: groups that do not overlap, for stages side by side.
void add_runs(const Problem& problem, std::set<Members>& sets) {
  Members order;
  for (uint16_t c = 0; c < problem.classes.size(); ++c)
    order.insert(order.end(), problem.classes[c].count(), c);
  std::sort(order.begin(), order.end(), [&](uint16_t a, uint16_t b) {
    const double fast = problem.classes[a].figures.decode_bytes_per_second;
    const double other = problem.classes[b].figures.decode_bytes_per_second;
    return fast != other ? fast > other : a < b;
  });
  for (ptrdiff_t size : {2, 4, 8}) {
    for (auto at = order.begin(); order.end() - at >= size; at += size) {
      Members members(at, at + size);
      std::sort(members.begin(), members.end());
      sets.insert(std::move(members));
    }
  }
}

// Of the sets around one seed the fastest of each size, `most` at most.
void add_fastest(const Problem& problem, const std::set<Members>& around, size_t most,
                 std::set<Members>& sets) {
  std::vector<std::pair<double, const Members*>> ranked;
  for (const Members& members : around) {
    auto group = make_group(problem, members, ShareBy::decode_speed);
    if (!group) group = make_group(problem, members, ShareBy::memory);
    if (!group) continue;
    ranked.emplace_back(layer_seconds(problem, *group, problem.kind_of.back(), usual_rows(problem.options)),
                        &members);
  }
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : *a.second < *b.second;
  });
  std::array<bool, kMostRanks + 1> taken = {};
  for (const auto& [seconds, members] : ranked) {
    if (most == 0 || taken[members->size()]) continue;
    taken[members->size()] = true, --most;
    sets.insert(*members);
  }
}

std::vector<Members> likely_sets(const Problem& problem) {
  std::set<Members> sets;
  for (uint16_t seed = 0; seed < problem.classes.size(); ++seed) {
    auto delay = [&](uint16_t other) {
      return message_seconds(problem.path(seed, other), problem.hidden_bytes);
    };
    auto speed = [&](uint16_t c) { return problem.classes[c].figures.decode_bytes_per_second; };
    auto unlike = [&](uint16_t c) { return std::max(speed(c) / speed(seed), speed(seed) / speed(c)); };
    double nearest = INFINITY;
    for (uint16_t other = 0; other < problem.classes.size(); ++other)
      if (other != seed || problem.classes[seed].count() > 1) nearest = std::min(nearest, delay(other));
    auto near = [&](uint16_t other) { return delay(other) <= kNearFactor * nearest; };
    std::set<Members> around;
    add_prefixes(seed,
                 companions(problem, seed,
                            [&](uint16_t a, uint16_t b) {
                              return near(a) != near(b) ? near(a) : speed(a) > speed(b);
                            }),
                 around);
    // Equals first: nobody waits for a slower one.
    add_prefixes(seed,
                 companions(problem, seed,
                            [&](uint16_t a, uint16_t b) {
                              return near(a) != near(b) ? near(a) : unlike(a) < unlike(b);
                            }),
                 around);
    add_fastest(problem, around, std::max<size_t>(3, kMostLikely / problem.classes.size()), sets);
  }
  if (problem.options.objective != Objective::latency) add_runs(problem, sets);
  return {sets.begin(), sets.end()};
}

// The group with each kind of shares that differ; of sets that are not all there are, fewer kinds.
void add_groups(const Problem& problem, const Members& members, bool all_sets, std::vector<Group>& groups) {
  std::vector<ShareBy> kinds = {ShareBy::decode_speed, ShareBy::speed_within_memory, ShareBy::memory};
  if (problem.options.objective == Objective::ttft) kinds[0] = ShareBy::prefill_speed;
  if (all_sets && problem.options.objective != Objective::latency)
    kinds.insert(kinds.begin() + 1, {ShareBy::decode_speed, ShareBy::prefill_speed});
  if (all_sets) kinds.push_back(ShareBy::whole_heads);
  const size_t before = groups.size();
  for (ShareBy share_by : kinds) {
    // Shares by memory alone are for those that do not fit otherwise.
    if (!all_sets && share_by == ShareBy::memory && groups.size() > before) continue;
    std::optional<Group> group = make_group(problem, members, share_by);
    if (!group) continue;
    bool known = std::any_of(groups.begin() + static_cast<ptrdiff_t>(before), groups.end(),
                             [&](const Group& other) { return other.shares == group->shares; });
    if (!known) groups.push_back(*std::move(group));
  }
}

}  // namespace

GroupSet candidate_groups(const Problem& problem, Strategy strategy) {
  GroupSet set;
  if (strategy != Strategy::tensor) {
    for (uint16_t c = 0; c < problem.classes.size(); ++c) {
      if (auto alone = make_group(problem, {c}, {1000})) set.groups.push_back(*std::move(alone));
    }
  }
  bool shareable = std::all_of(problem.kinds.begin(), problem.kinds.end(),
                               [](const LayerKind& kind) { return can_share(kind.demand, 2); });
  if (strategy == Strategy::pipeline || !shareable) return set;
  std::vector<Members> sets;
  Members members;

  set.all_sets = list_sets(problem, 0, problem.device_count() <= kFewDevices ? kMostSets : kMostSetsOfMany,
                           members, sets);
  if (!set.all_sets) sets = likely_sets(problem);
  for (const Members& each : sets) add_groups(problem, each, set.all_sets, set.groups);
  return set;
}

}  // namespace shoal::planner
