// The planner against trying everything: every sequence of disjoint groups with every cut, under the same
// costs.
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>

#include "planner/made_cases.h"
#include "planner/objective.h"

namespace shoal::planner {
namespace {

class Everything {
 public:
  Everything(const Problem& problem, const GroupSet& set) : problem_(problem), set_(set) {}

  double best() {
    extend(0, 0);
    return best_;
  }

 private:
  void extend(uint32_t used, uint32_t done) {
    if (done == problem_.layer_count()) {
      if (wanted(used)) best_ = std::min(best_, objective_seconds(problem_, set_.groups, cuts_));
      return;
    }
    for (uint32_t group = 0; group < set_.groups.size(); ++group) {
      uint32_t members = 0;
      for (uint16_t member : set_.groups[group].members) members |= 1u << member;
      if ((used & members) != 0) continue;
      for (uint32_t end = done + 1; end <= problem_.layer_count(); ++end) {
        if (!fits(set_.groups[group], done, end)) continue;
        cuts_.push_back({group, done, end});
        extend(used | members, end);
        cuts_.pop_back();
      }
    }
  }

  bool fits(const Group& group, uint32_t first, uint32_t end) const {
    for (uint32_t rank = 0; rank < group.ranks(); ++rank) {
      if (group.memory_bytes(problem_, rank, first, end) >
          problem_.classes[group.members[rank]].figures.free_memory_bytes)
        return false;
    }
    return true;
  }

  bool wanted(uint32_t used) const {
    bool shared = std::any_of(cuts_.begin(), cuts_.end(),
                              [&](const Cut& cut) { return set_.groups[cut.group].ranks() > 1; });
    switch (problem_.options.strategy) {
      case Strategy::tensor:
        if (cuts_.size() > 1 || !shared) return false;
        break;
      case Strategy::hybrid:
        if (cuts_.size() < 2 || !shared) return false;
        break;
      case Strategy::pipeline:
        if (shared) return false;
        break;
      case Strategy::automatic:
        break;
    }
    return static_cast<uint32_t>(std::popcount(used)) >= problem_.options.minimum_nodes;
  }

  const Problem& problem_;
  const GroupSet& set_;
  std::vector<Cut> cuts_;
  double best_ = kNever;
};

double try_everything(const RandomCase& c) {
  auto problem = make_problem(c.devices, std::vector<bool>(c.devices.size(), true), c.links, c.model,
                              c.options, Symmetry::ignored);
  if (!problem) return NAN;
  return Everything(*problem, candidate_groups(*problem, c.options.strategy)).best();
}

double predicted(const Placement& placement, Objective objective) {
  switch (objective) {
    case Objective::latency:
      return 1 / placement.tokens_per_second;
    case Objective::throughput:
      return 1 / placement.batch_tokens_per_second;
    case Objective::ttft:
      return placement.first_token_seconds;
  }
  return NAN;
}

// The rules that every placement keeps.
void check_valid(const Placement& placement, const RandomCase& c) {
  uint32_t next = 0;
  std::vector<std::string> seen;
  for (const StagePlan& stage : placement.stages) {
    EXPECT_EQ(stage.first_layer, next);
    EXPECT_GT(stage.end_layer, stage.first_layer);
    next = stage.end_layer;
    uint32_t shares = 0;
    for (const RankPlan& rank : stage.ranks) {
      EXPECT_EQ(std::count(seen.begin(), seen.end(), rank.node), 0) << rank.node << " serves twice";
      seen.push_back(rank.node);
      shares += rank.share_per_mille;
      auto found = std::find_if(c.devices.begin(), c.devices.end(),
                                [&](const Device& d) { return d.node == rank.node; });
      ASSERT_NE(found, c.devices.end());
      EXPECT_LE(rank.memory_bytes, found->free_memory_bytes);
    }
    EXPECT_EQ(shares, 1000u);
  }
  EXPECT_EQ(next, c.model.layers.size());
  EXPECT_GE(seen.size(), c.options.minimum_nodes);
}

struct Tally {
  uint32_t placed = 0, impossible = 0, shared = 0, mixed = 0;
};

void compare(const RandomCase& c, Tally& tally) {
  double expected = try_everything(c);
  auto placements = plan(c.devices, c.links, c.model, c.options);
  ASSERT_EQ(placements.has_value(), expected < kNever) << (placements ? "" : placements.error().text());
  ++(placements ? tally.placed : tally.impossible);
  if (!placements) return;
  const Placement& best = placements->front();
  check_valid(best, c);
  EXPECT_TRUE(best.exact);
  double seconds = predicted(best, c.options.objective);
  EXPECT_GE(seconds, expected * (1 - 1e-9));
  EXPECT_LE(seconds, expected * 1.0101);
  bool shared = std::any_of(best.stages.begin(), best.stages.end(),
                            [](const StagePlan& s) { return s.ranks.size() > 1; });
  tally.shared += shared;
  tally.mixed += shared && best.stages.size() > 1;
}

TEST(BruteForce, PipelinesAreTheBestThereAre) {
  std::mt19937 random(20240817);
  Tally tally;
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE(round);
    RandomCase c = random_case(random, 1 + random() % 4, 3 + random() % 5, false);
    c.options.concurrency = 1 + random() % 8;
    c.options.context_tokens = 1;
    c.options.objective = static_cast<Objective>(random() % 3);
    c.options.prompt_tokens = 1 + random() % 4000;
    compare(c, tally);
  }
  EXPECT_GT(tally.placed, 100u);
  EXPECT_GT(tally.impossible, 30u);
}

TEST(BruteForce, TensorGroupsAndTheirMixturesWithPipelinesAreTheBestThereAre) {
  std::mt19937 random(7);
  Tally tally;
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE(round);
    RandomCase c = random_case(random, 2 + random() % 3, 3 + random() % 3, true);
    c.options.strategy = static_cast<Strategy>(random() % 4);
    compare(c, tally);
  }
  EXPECT_GT(tally.placed, 100u);
  EXPECT_GT(tally.impossible, 30u);
  EXPECT_GT(tally.shared, 50u);
  EXPECT_GT(tally.mixed, 15u);
}

TEST(BruteForce, ThroughputAndFirstTokenWithTensorGroups) {
  std::mt19937 random(99);
  Tally tally;
  for (int round = 0; round < 120; ++round) {
    SCOPED_TRACE(round);
    RandomCase c = random_case(random, 2 + random() % 3, 3 + random() % 3, true);
    c.options.concurrency = 1 + random() % 12;
    c.options.context_tokens = 1;
    c.options.objective = random() % 2 == 0 ? Objective::throughput : Objective::ttft;
    c.options.prompt_tokens = 1 + random() % 4000;
    compare(c, tally);
  }
  EXPECT_GT(tally.placed, 50u);
  EXPECT_GT(tally.shared, 15u);
}

TEST(Rules, PlacementsOverManyDevicesKeepThem) {
  std::mt19937 random(31);
  uint32_t placed = 0, shared = 0;
  for (int round = 0; round < 18; ++round) {
    SCOPED_TRACE(round);
    RandomCase c =
        random_case(random, static_cast<uint32_t>(8 + random() % 50), 12 + random() % 12, round % 3 != 0);
    for (size_t i = 0; i < c.devices.size(); ++i)
      c.devices[i].node = c.devices[i].name = fmt::format("n{}", i);
    for (Device& d : c.devices) d.free_memory_bytes /= 4;
    c.options.concurrency = 1 + random() % 8;
    c.options.prompt_tokens = 2000;
    c.options.objective = static_cast<Objective>(round % 3);
    auto placements = plan(c.devices, c.links, c.model, c.options);
    if (!placements) continue;
    ++placed;
    for (const Placement& placement : *placements) {
      check_valid(placement, c);
      shared += std::any_of(placement.stages.begin(), placement.stages.end(),
                            [](const StagePlan& stage) { return stage.ranks.size() > 1; });
    }
  }
  EXPECT_GT(placed, 12u);
  EXPECT_GT(shared, 5u);
}

}  // namespace
}  // namespace shoal::planner
