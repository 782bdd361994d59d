#include "cluster/world.h"

#include <gtest/gtest.h>
#include <set>

namespace shoal::cluster {
namespace {

// `sizes[s]` ranks share stage s.
InstanceFact world(const std::vector<uint32_t>& sizes) {
  InstanceFact fact;
  for (uint32_t stage = 0; stage < sizes.size(); ++stage) {
    for (uint32_t i = 0; i < sizes[stage]; ++i) {
      fact.ranks.push_back(
          {.node = "n", .first_layer = stage * 2, .end_layer = stage * 2 + 2, .share = 100 + i});
    }
  }
  return fact;
}

TEST(World, ARankAloneTalksToNobody) {
  const RankLinks links = links_of(world({1}), 0);
  EXPECT_EQ(links.group, std::vector<uint32_t>{0});
  EXPECT_TRUE(links.calls.empty() && links.called_by.empty() && !links.next && !links.previous);
  EXPECT_EQ(links.stage_count, 1u);
}

TEST(World, StagesOfOneRankFormARing) {
  const InstanceFact fact = world({1, 1, 1});
  for (uint32_t rank = 0; rank < 3; ++rank) {
    const RankLinks links = links_of(fact, rank);
    EXPECT_EQ(links.stage, rank);
    EXPECT_EQ(links.next, (rank + 1) % 3);
    EXPECT_EQ(links.previous, (rank + 2) % 3);
    EXPECT_EQ(links.calls, std::vector<uint32_t>{(rank + 1) % 3});
  }
}

TEST(World, GroupsAreMeshesAndOnlyLeadersAreInTheRing) {
  const InstanceFact fact = world({2, 3, 1});
  EXPECT_EQ(stage_count(fact), 3u);
  const RankLinks leader = links_of(fact, 2);
  EXPECT_EQ(leader.group, (std::vector<uint32_t>{2, 3, 4}));
  EXPECT_EQ(leader.next, 5u);
  EXPECT_EQ(leader.previous, 0u);
  EXPECT_EQ(leader.calls, (std::vector<uint32_t>{3, 4, 5}));
  EXPECT_EQ(leader.called_by, std::vector<uint32_t>{0});
  const RankLinks member = links_of(fact, 3);
  EXPECT_FALSE(member.next || member.previous);
  EXPECT_EQ(member.calls, std::vector<uint32_t>{4});
  EXPECT_EQ(member.called_by, std::vector<uint32_t>{2});
  EXPECT_EQ(shares_of(fact, member.group), (std::vector<uint32_t>{100, 101, 102}));
  EXPECT_TRUE(shares_of(fact, links_of(fact, 5).group).empty());
}

TEST(World, EveryLinkHasOneCallerAndOneCalled) {
  for (const std::vector<uint32_t>& sizes :
       {std::vector<uint32_t>{1, 1}, {2}, {8}, {2, 2}, {3, 1, 2}, {1, 4, 1, 1}, {5, 5}}) {
    const InstanceFact fact = world(sizes);
    std::multiset<std::pair<uint32_t, uint32_t>> called, calling;
    for (uint32_t rank = 0; rank < fact.ranks.size(); ++rank) {
      const RankLinks links = links_of(fact, rank);
      for (const uint32_t peer : links.calls) calling.emplace(rank, peer);
      for (const uint32_t peer : links.called_by) called.emplace(peer, rank);
    }
    EXPECT_EQ(called, calling);
    EXPECT_EQ(std::set(called.begin(), called.end()).size(), called.size());
  }
}

}  // namespace
}  // namespace shoal::cluster
