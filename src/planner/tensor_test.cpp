// Stages that ranks share: when they are chosen, how, and what they hold.
#include <algorithm>
#include <gtest/gtest.h>

#include "planner/made_cases.h"
#include "planner/objective.h"

namespace shoal::planner {
namespace {

std::vector<Device> equals(uint32_t count, uint64_t memory_bytes, double speed) {
  std::vector<Device> devices;
  for (uint32_t i = 0; i < count; ++i) devices.push_back(device(fmt::format("n{}", i), memory_bytes, speed));
  return devices;
}

PlanOptions with(Strategy strategy) {
  PlanOptions options = small_context();
  options.strategy = strategy;
  return options;
}

TEST(Tensor, FastLinksShareALayerSlowLinksCutBetweenLayers) {
  const auto devices = equals(4, 900 * kMiB, 10e9);
  const ModelDemand model = shareable_model(16, 100 * kMiB, 8, 64);
  auto fast = plan(devices, mesh(4, 20e-6, 1e10, LinkKind::thunderbolt), model, small_context());
  ASSERT_TRUE(fast.has_value()) << fast.error().text();
  ASSERT_EQ(fast->front().stages.size(), 1u);
  EXPECT_EQ(fast->front().stages[0].ranks.size(), 4u);
  EXPECT_TRUE(fast->front().exact);
  auto slow = plan(devices, mesh(4, 20e-3, 1e7, LinkKind::wifi), model, small_context());
  ASSERT_TRUE(slow.has_value());
  EXPECT_EQ(slow->front().stages.size(), 2u);
  for (const StagePlan& stage : slow->front().stages) EXPECT_EQ(stage.ranks.size(), 1u);
}

TEST(Tensor, EveryRankCountFromTwoToEightWorks) {
  for (uint32_t count = 2; count <= 8; ++count) {
    auto placements = plan(equals(count, 900 * kMiB, 10e9), mesh(count, 10e-6, 1e10),
                           shareable_model(count * 6, 100 * kMiB, 8, 64), with(Strategy::tensor));
    ASSERT_TRUE(placements.has_value()) << placements.error().text();
    ASSERT_EQ(placements->front().stages.size(), 1u);
    const StagePlan& stage = placements->front().stages[0];
    ASSERT_EQ(stage.ranks.size(), count);
    double alone = count * 6 * 100.0 * kMiB / 10e9;
    EXPECT_GE(stage.ranks[0].decode_seconds, alone / count * (1 - 1e-9));
    EXPECT_LT(stage.decode_seconds, alone) << count << " ranks";
  }
}

TEST(Tensor, SharesFollowSpeedInWholeHeads) {
  auto devices = equals(3, 4000 * kMiB, 10e9);
  devices[1].decode_bytes_per_second = 30e9;
  auto placements =
      plan(devices, mesh(3, 10e-6, 1e10), shareable_model(10, 100 * kMiB, 10, 100), with(Strategy::tensor));
  ASSERT_TRUE(placements.has_value());
  const StagePlan& stage = placements->front().stages[0];
  ASSERT_EQ(stage.ranks.size(), 3u);
  EXPECT_EQ(stage.node, "id-n1") << "the fastest leads";
  EXPECT_EQ(stage.ranks[0].share_per_mille, 600u);
  EXPECT_EQ(stage.ranks[1].share_per_mille, 200u);
  EXPECT_EQ(stage.ranks[0].memory_bytes, 600 * kMiB);
  EXPECT_EQ(stage.ranks[1].memory_bytes, 200 * kMiB);
  EXPECT_NEAR(stage.ranks[0].decode_seconds, stage.ranks[1].decode_seconds, 1e-6);
}

TEST(Tensor, ARankWithLittleMemoryTakesASmallerShare) {
  auto devices = equals(2, 4000 * kMiB, 10e9);
  devices[1].free_memory_bytes = 320 * kMiB;
  auto placements =
      plan(devices, mesh(2, 10e-6, 1e10), shareable_model(10, 100 * kMiB, 10, 100), with(Strategy::tensor));
  ASSERT_TRUE(placements.has_value()) << placements.error().text();
  const StagePlan& stage = placements->front().stages[0];
  ASSERT_EQ(stage.ranks.size(), 2u);
  EXPECT_EQ(stage.ranks[1].node, "id-n1");
  EXPECT_LE(stage.ranks[1].memory_bytes, 320 * kMiB);
  EXPECT_GE(stage.ranks[1].memory_bytes, 250 * kMiB) << "as much as it can hold";
}

TEST(Tensor, ALayerThatNoDeviceHoldsAloneIsShared) {
  ModelDemand model = shareable_model(2, 1000 * kMiB, 8, 64);
  const auto devices = equals(4, 600 * kMiB, 10e9);
  EXPECT_EQ(plan(devices, {}, model, with(Strategy::pipeline)).error().code, ErrorCode::out_of_memory);
  auto placements = plan(devices, {}, model, small_context());
  ASSERT_TRUE(placements.has_value()) << placements.error().text();
  for (const StagePlan& stage : placements->front().stages) EXPECT_GE(stage.ranks.size(), 2u);
}

TEST(Tensor, NormsAndLatentKeysAreHeldByEveryRank) {
  ModelDemand model = shareable_model(4, 100 * kMiB, 8, 64);
  for (LayerDemand& layer : model.layers) {
    layer.replicated_bytes = 20 * kMiB;
    layer.kv_bytes_per_token = kMiB;
    layer.kv_replicated = true;
  }
  model.embedding_bytes = 8 * kMiB;
  model.head_bytes = 16 * kMiB;
  PlanOptions options = with(Strategy::tensor);
  options.context_tokens = 10;
  auto placements = plan(equals(2, 4000 * kMiB, 10e9), mesh(2, 10e-6, 1e10), model, options);
  ASSERT_TRUE(placements.has_value());
  for (const RankPlan& rank : placements->front().stages[0].ranks)
    EXPECT_EQ(rank.memory_bytes, 4 * (20 + 40 + 10) * kMiB + (8 + 16 / 2) * kMiB);
}

TEST(Tensor, RanksBeyondTheKvHeadsHoldCopiesOfKeysAndValues) {
  ModelDemand model = shareable_model(4, 100 * kMiB, 2, 64);
  for (LayerDemand& layer : model.layers) layer.kv_bytes_per_token = 8 * kMiB;
  PlanOptions options = with(Strategy::tensor);
  options.minimum_nodes = 4;
  auto placements = plan(equals(4, 4000 * kMiB, 10e9), mesh(4, 10e-6, 1e10), model, options);
  ASSERT_TRUE(placements.has_value());
  const StagePlan& stage = placements->front().stages[0];
  ASSERT_EQ(stage.ranks.size(), 4u);
  // A kv head of 4 MiB on each, 75 / 4 MiB of width, and of the attention 2 of 8 query and 1 of 2 kv heads.
  EXPECT_NEAR(static_cast<double>(stage.ranks[0].memory_bytes) / kMiB, 4 * (4 + 75.0 / 4 + 25.0 * 3 / 10),
              1e-3);
}

TEST(Tensor, StrategiesAreKept) {
  const auto devices = equals(4, 900 * kMiB, 10e9);
  const auto links = mesh(4, 20e-6, 1e10);
  const ModelDemand model = shareable_model(16, 100 * kMiB, 8, 64);
  auto pipeline = plan(devices, links, model, with(Strategy::pipeline));
  ASSERT_TRUE(pipeline.has_value());
  for (const StagePlan& stage : pipeline->front().stages) EXPECT_EQ(stage.ranks.size(), 1u);
  auto hybrid = plan(devices, links, model, with(Strategy::hybrid));
  ASSERT_TRUE(hybrid.has_value()) << hybrid.error().text();
  EXPECT_GE(hybrid->front().stages.size(), 2u);
  EXPECT_TRUE(std::any_of(hybrid->front().stages.begin(), hybrid->front().stages.end(),
                          [](const StagePlan& stage) { return stage.ranks.size() > 1; }));
  EXPECT_EQ(plan(devices, links, even_model(16, 100 * kMiB), with(Strategy::tensor)).error().code,
            ErrorCode::unsupported);
}

TEST(Tensor, AutomaticOffersAlternativesThatDiffer) {
  auto placements = plan(equals(4, 2000 * kMiB, 10e9), mesh(4, 20e-6, 1e10),
                         shareable_model(16, 100 * kMiB, 8, 64), small_context());
  ASSERT_TRUE(placements.has_value());
  EXPECT_GE(placements->size(), 3u);
  for (size_t i = 1; i < placements->size(); ++i)
    EXPECT_LE((*placements)[i].tokens_per_second, (*placements)[0].tokens_per_second * 1.01);
}

}  // namespace
}  // namespace shoal::planner
