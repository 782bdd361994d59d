#include "planner/shares.h"

#include <algorithm>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

namespace shoal::planner {
namespace {

using testing::ElementsAre;

LayerDemand layer_of(uint32_t query_heads, uint32_t kv_heads, uint32_t units) {
  LayerDemand layer;
  layer.weight_bytes = 1000;
  layer.attention_bytes = 400;
  layer.query_heads = query_heads;
  layer.kv_heads = kv_heads;
  layer.feed_forward_units = units;
  return layer;
}

double slowest(const std::vector<uint32_t>& counts, const std::vector<double>& weights) {
  double slowest = 0;
  for (size_t i = 0; i < counts.size(); ++i) slowest = std::max(slowest, counts[i] / weights[i]);
  return slowest;
}

// The least slowest rank of all ways to give `left` units to the ranks from `rank` on, at least one each.
double best_of_all(std::vector<uint32_t>& counts, size_t rank, uint32_t left,
                   const std::vector<double>& weights) {
  if (rank + 1 == counts.size()) {
    counts[rank] = left;
    return left == 0 ? INFINITY : slowest(counts, weights);
  }
  double best = INFINITY;
  for (uint32_t given = 1; given < left; ++given) {
    counts[rank] = given;
    best = std::min(best, best_of_all(counts, rank + 1, left - given, weights));
  }
  return best;
}

TEST(Shares, NoOtherWholeSharesMakeTheSlowestRankFaster) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    size_t ranks = 2 + random() % 3;
    uint32_t units = static_cast<uint32_t>(ranks + random() % 20);
    std::vector<double> weights;
    for (size_t i = 0; i < ranks; ++i) weights.push_back(1.0 + static_cast<double>(random() % 50));
    std::vector<uint32_t> counts = apportion(units, weights), scratch(ranks);
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0u), units);
    EXPECT_NEAR(slowest(counts, weights), best_of_all(scratch, 0, units, weights), 1e-12)
        << "round " << round;
  }
}

TEST(Shares, SevenRanksOfUnlikeSpeedsShareEightHeads) {
  EXPECT_THAT(apportion(8, std::vector<double>{2, 1, 1, 1, 1, 1, 1}), ElementsAre(2, 1, 1, 1, 1, 1, 1));
  EXPECT_THAT(apportion(28, std::vector<double>{10, 30, 30}), ElementsAre(4, 12, 12));
  EXPECT_THAT(per_mille(std::vector<double>{1, 1, 1}), ElementsAre(334, 333, 333));
}

TEST(Shares, AttentionIsCutByKvHeadsAndWidthByUnits) {
  const auto parts = cut_layer(layer_of(32, 8, 64), std::vector<uint32_t>{750, 250});
  EXPECT_DOUBLE_EQ(parts[0].attention, 0.75);
  EXPECT_DOUBLE_EQ(parts[0].kv, 0.75);
  EXPECT_DOUBLE_EQ(parts[1].feed_forward, 0.25);
}

TEST(Shares, WithMoreRanksThanKvHeadsTheHeadsAreCopied) {
  // 4 query heads and 2 kv heads over 4 ranks: a query head and a copy of its kv head each.
  const auto parts = cut_layer(layer_of(4, 2, 64), std::vector<uint32_t>{250, 250, 250, 250});
  for (const RankPart& part : parts) {
    EXPECT_DOUBLE_EQ(part.kv, 0.5);
    EXPECT_DOUBLE_EQ(part.attention, 2.0 / 6);
    EXPECT_DOUBLE_EQ(part.feed_forward, 0.25);
  }
}

TEST(Shares, UnevenRanksReadTheKvHeadsThatTheirQueriesNeed) {
  // 12 query heads in groups of 6; the ranks take 5, 4 and 3: heads 0-4, 5-8, 9-11.
  const auto parts = cut_layer(layer_of(12, 2, 60), std::vector<uint32_t>{417, 333, 250});
  EXPECT_DOUBLE_EQ(parts[0].kv, 0.5);
  EXPECT_DOUBLE_EQ(parts[1].kv, 1);
  EXPECT_DOUBLE_EQ(parts[2].kv, 0.5);
}

TEST(Shares, LatentKeysAreWholeOnEveryRank) {
  LayerDemand layer = layer_of(16, 16, 64);
  layer.kv_replicated = true;
  for (const RankPart& part : cut_layer(layer, std::vector<uint32_t>{334, 333, 333}))
    EXPECT_DOUBLE_EQ(part.kv, 1);
}

TEST(Shares, WhatLoadingDividesIsTheLargestRemainder) {
  EXPECT_THAT(divide_units(8, std::vector<uint32_t>{412, 294, 294}), ElementsAre(3, 3, 2));
  EXPECT_THAT(divide_units(4, std::vector<uint32_t>{900, 50, 50}), ElementsAre(2, 1, 1))
      << "nobody is without";
  EXPECT_THAT(divide_units(2, std::vector<uint32_t>{300, 400, 300}), ElementsAre(1, 1, 0));
}

TEST(Shares, RanksBeyondTheHeadsHoldNoneAndWholeMixersAreOnAll) {
  const auto few = cut_layer(layer_of(2, 2, 64), std::vector<uint32_t>{334, 333, 333});
  EXPECT_DOUBLE_EQ(few[2].attention, 0);
  EXPECT_NEAR(few[2].feed_forward, 1.0 / 3, 0.01);
  const auto whole = cut_layer(layer_of(0, 0, 64), std::vector<uint32_t>{500, 500});
  EXPECT_DOUBLE_EQ(whole[1].attention, 1);
  EXPECT_DOUBLE_EQ(whole[1].kv, 1);
  EXPECT_FALSE(can_share(layer_of(8, 8, 0), 2));
}

}  // namespace
}  // namespace shoal::planner
