#include "planner/explain.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "base/assert.h"

namespace shoal::planner {
namespace {

constexpr double kWorthSaying = 0.02;
constexpr double kWorthNaming = 0.1;  // of what a device would add

StagePlan stage_plan(const Problem& problem, const Group& group, const Cut& cut) {
  StagePlan stage;
  stage.first_layer = cut.first_layer;
  stage.end_layer = cut.end_layer;
  stage.decode_seconds = stage_seconds(problem, group, cut.first_layer, cut.end_layer, {1, 1});
  for (uint32_t layer = cut.first_layer; layer < cut.end_layer; ++layer)
    stage.all_reduce_seconds += all_reduce_seconds(problem, group, problem.kind_of[layer], 1);
  for (uint32_t rank = 0; rank < group.ranks(); ++rank) {
    RankPlan plan;
    plan.share_per_mille = group.shares[rank];
    plan.memory_bytes = group.memory_bytes(problem, rank, cut.first_layer, cut.end_layer);
    for (uint32_t layer = cut.first_layer; layer < cut.end_layer; ++layer)
      plan.decode_seconds += rank_layer_seconds(problem, group, rank, problem.kind_of[layer], 1);
    if (cut.end_layer == problem.layer_count())
      plan.decode_seconds += rank_head_seconds(problem, group, rank, 1);
    stage.memory_bytes = std::max(stage.memory_bytes, plan.memory_bytes);
    stage.ranks.push_back(plan);
  }
  return stage;
}

double hop_seconds(const Problem& problem, const std::vector<Group>& groups, const std::vector<Cut>& cuts) {
  double seconds = 0;
  for (size_t i = 1; i < cuts.size(); ++i)
    seconds += hop(problem, groups[cuts[i - 1].group], groups[cuts[i].group], 1).seconds;
  if (cuts.size() > 1)
    seconds += return_seconds(problem, groups[cuts.back().group], groups[cuts.front().group]);
  return seconds;
}

// The slowest kind of link between a device of this class and a member of the placement's other stages.
LinkKind worst_link(const Problem& problem, const std::vector<Group>& groups, const std::vector<Cut>& with,
                    uint16_t c) {
  LinkKind kind = LinkKind::unknown;
  double worst = -1;
  for (const Cut& cut : with) {
    for (uint16_t member : groups[cut.group].members) {
      if (member == c) continue;
      for (const Path* path : {&problem.path(c, member), &problem.path(member, c)})
        if (path->one_way_seconds > worst) worst = path->one_way_seconds, kind = path->kind;
    }
  }
  return kind;
}

}  // namespace

std::string gibibytes(uint64_t bytes) {
  double mebibytes = static_cast<double>(bytes) / (1024.0 * 1024.0);
  return mebibytes < 1024 ? fmt::format("{:.1f} MiB", mebibytes)
                          : fmt::format("{:.1f} GiB", mebibytes / 1024);
}

Placement describe(const Problem& problem, const std::vector<Device>& devices,
                   const std::vector<Group>& groups, const std::vector<Cut>& cuts) {
  Placement placement;
  std::vector<size_t> taken(problem.classes.size(), 0);
  for (size_t i = 0; i < cuts.size(); ++i) {
    const Group& group = groups[cuts[i].group];
    StagePlan stage = stage_plan(problem, group, cuts[i]);
    for (uint32_t rank = 0; rank < group.ranks(); ++rank) {
      uint16_t c = group.members[rank];
      SHOAL_ASSERT(taken[c] < problem.classes[c].count());
      stage.ranks[rank].node = devices[problem.classes[c].devices[taken[c]++]].node;
    }
    stage.node = stage.ranks[0].node;
    if (i + 1 < cuts.size()) {
      stage.hop_seconds = hop(problem, group, groups[cuts[i + 1].group], 1).seconds;
    } else if (cuts.size() > 1) {
      stage.hop_seconds = return_seconds(problem, group, groups[cuts.front().group]);
    }
    placement.stages.push_back(std::move(stage));
  }
  auto rate = [](double seconds) { return seconds > 0 ? 1 / seconds : 0; };
  Figures asked = figures(problem, groups, cuts);
  placement.tokens_per_second = rate(asked.token_seconds);
  placement.batch_tokens_per_second = rate(asked.batch_token_seconds);
  placement.first_token_seconds = asked.first_token_seconds;
  Problem halved = problem;
  halved.options.wire = WireFormat::bf16;
  Figures with_bf16 = figures(halved, groups, cuts);
  placement.bf16_tokens_per_second = rate(with_bf16.token_seconds);
  placement.bf16_first_token_seconds = with_bf16.first_token_seconds;
  return placement;
}

std::string bound_reason(const Placement& placement, const std::vector<Device>& devices) {
  double hops = 0, sums = 0, slowest = 0, total = 0;
  std::string node;
  for (const StagePlan& stage : placement.stages) {
    double compute = stage.decode_seconds - stage.all_reduce_seconds;
    hops += stage.hop_seconds, sums += stage.all_reduce_seconds;
    total += stage.decode_seconds + stage.hop_seconds;
    if (compute <= slowest) continue;
    slowest = compute;
    auto waited_for = std::max_element(
        stage.ranks.begin(), stage.ranks.end(),
        [](const RankPlan& a, const RankPlan& b) { return a.decode_seconds < b.decode_seconds; });
    node = waited_for->node;
  }
  for (const Device& device : devices)
    if (device.node == node) node = device.name;
  auto words = [&](std::string_view what, double seconds) {
    return fmt::format("bound by {}: {:.2f} of {:.2f} ms a token", what, seconds * 1e3, total * 1e3);
  };
  if (sums > slowest && sums >= hops) return words("the sums between ranks", sums);
  if (hops > slowest) return words("the links", hops);
  return words("reading weights on " + node, slowest);
}

std::string wire_reason(const Placement& placement, WireFormat wire) {
  if (wire == WireFormat::bf16) return {};
  double decode = placement.bf16_tokens_per_second / placement.tokens_per_second - 1;
  double prompt = 1 - placement.bf16_first_token_seconds / placement.first_token_seconds;
  if (!(std::max(decode, prompt) >= kWorthSaying)) return {};
  return fmt::format(
      "--wire bf16 would give {:.1f} tokens/s ({:+.0f} %) and the first token after {:.2f} s ({:+.0f} %)",
      placement.bf16_tokens_per_second, decode * 100, placement.bf16_first_token_seconds, -prompt * 100);
}

std::vector<Cut> with_device(const Problem& problem, std::vector<Group>& groups, const std::vector<Cut>& cuts,
                             uint16_t c) {
  std::vector<Group> own;  // [stage] as they are, then those with the device
  std::vector<std::vector<Cut>> orders;
  std::vector<Cut> stages = cuts;
  for (size_t at = 0; at < cuts.size(); ++at) {
    own.push_back(groups[cuts[at].group]);
    stages[at].group = static_cast<uint32_t>(at);
  }
  auto alone = make_group(problem, {c}, {1000});
  if (alone && problem.options.strategy != Strategy::tensor) {
    own.push_back(*std::move(alone));
    for (size_t at = 0; at <= cuts.size(); ++at) {
      orders.push_back(stages);
      orders.back().insert(orders.back().begin() + static_cast<ptrdiff_t>(at),
                           {static_cast<uint32_t>(own.size() - 1), 0, 0});
    }
  }
  for (size_t at = 0; at < cuts.size() && problem.options.strategy != Strategy::pipeline; ++at) {
    std::vector<uint16_t> members = own[at].members;
    if (members.size() == kMostRanks) continue;
    members.push_back(c);
    auto joined = make_group(problem, std::move(members), ShareBy::speed_within_memory);
    if (!joined) continue;
    own.push_back(*std::move(joined));
    orders.push_back(stages);
    orders.back()[at].group = static_cast<uint32_t>(own.size() - 1);
  }
  std::vector<Cut> best;
  double best_seconds = kNever;
  PassTable table(problem, own, main_pass(problem, cuts.size() + 1));
  for (const std::vector<Cut>& order : orders) {
    std::vector<Cut> tried = best_cut(table, order);
    double seconds = tried.empty() ? kNever : objective_seconds(problem, own, tried);
    if (seconds < best_seconds) best_seconds = seconds, best = std::move(tried);
  }
  for (Cut& cut : best) {
    if (cut.group < cuts.size()) {
      cut.group = cuts[cut.group].group;
    } else {
      groups.push_back(std::move(own[cut.group]));
      cut.group = static_cast<uint32_t>(groups.size() - 1);
    }
  }
  return best;
}

std::string left_out_reason(const Problem& problem, const std::vector<Group>& groups,
                            const std::vector<Cut>& best, const std::vector<Cut>& with, uint16_t c,
                            const std::string& name) {
  if (with.empty()) return fmt::format("left out {}: no placement that uses it fits", name);
  Figures now = figures(problem, groups, best), then = figures(problem, groups, with);
  double gain = 1 - objective_seconds(problem, groups, with) / objective_seconds(problem, groups, best);
  if (gain >= 0) return fmt::format("left out {}: it would gain {:.1f} %", name, gain * 100);
  switch (problem.options.objective) {
    case Objective::throughput:
      return fmt::format("left out {}: would take {:.1f} % of the throughput", name,
                         (1 - now.batch_token_seconds / then.batch_token_seconds) * 100);
    case Objective::ttft:
      return fmt::format("left out {}: would add {:.0f} ms to the first token", name,
                         (then.first_token_seconds - now.first_token_seconds) * 1e3);
    case Objective::latency:
      break;
  }
  double added = then.token_seconds - now.token_seconds;
  double of_links = hop_seconds(problem, groups, with) - hop_seconds(problem, groups, best);
  LinkKind kind = worst_link(problem, groups, with, c);
  if (of_links > added / 2 && kind != LinkKind::unknown)
    return fmt::format("left out {}: {} link adds {:.2f} ms a token", name, to_string(kind), of_links * 1e3);
  if (of_links > added * kWorthNaming && kind != LinkKind::unknown)
    return fmt::format("left out {}: would add {:.2f} ms a token, {:.2f} of them on its {} link", name,
                       added * 1e3, of_links * 1e3, to_string(kind));
  return fmt::format("left out {}: would add {:.2f} ms a token", name, added * 1e3);
}

}  // namespace shoal::planner
