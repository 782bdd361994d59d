#include "planner/planner.h"

#include <algorithm>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

#include "planner/made_cases.h"

namespace shoal::planner {
namespace {

TEST(Planner, FiveAndSevenNodesShareWhatNoneCouldHold) {
  for (uint32_t count : {5u, 7u}) {
    std::vector<Device> devices;
    for (uint32_t i = 0; i < count; ++i) devices.push_back(device(fmt::format("n{}", i), 700 * kMiB, 10e9));
    ModelDemand model = even_model(6 * count, 100 * kMiB);
    model.embedding_bytes = model.head_bytes = 50 * kMiB;
    auto placements = plan(devices, {}, model, small_context());
    ASSERT_TRUE(placements.has_value()) << placements.error().text();
    EXPECT_EQ(placements->front().stages.size(), count);
    // 100 MiB a layer at 10 GB/s and a hop of 0.1 ms between all, the way back included.
    double expected = (6.0 * count * 100 * kMiB + 50 * kMiB) / 10e9 + count * 0.1e-3;
    EXPECT_NEAR(1 / placements->front().tokens_per_second, expected, 1e-3);
  }
}

TEST(Planner, OneNodeIsPreferredWhenItHoldsTheModel) {
  auto placements = plan({device("slow", 900 * kMiB, 5e9), device("fast", 900 * kMiB, 20e9)}, {},
                         even_model(8, 100 * kMiB), small_context());
  ASSERT_TRUE(placements.has_value());
  ASSERT_EQ(placements->front().stages.size(), 1u);
  EXPECT_EQ(placements->front().stages[0].node, "id-fast");
  EXPECT_GT(placements->size(), 1u);
  EXPECT_GT(placements->front().tokens_per_second, (*placements)[1].tokens_per_second);
  const auto& reasons = placements->front().reasons;
  EXPECT_TRUE(std::any_of(reasons.begin(), reasons.end(), [](const std::string& reason) {
    return reason.starts_with("left out slow: would add");
  })) << reasons.back();
}

TEST(Planner, OfEqualNodesThoseThatAreLeftOutAreNamed) {
  std::vector<Device> devices;
  for (int i = 0; i < 4; ++i) devices.push_back(device(fmt::format("n{}", i), 500 * kMiB, 9e9));
  auto placements = plan(devices, {}, even_model(8, 100 * kMiB), small_context());
  ASSERT_TRUE(placements.has_value());
  ASSERT_EQ(placements->front().stages.size(), 2u);
  EXPECT_EQ(placements->front().stages[0].node, "id-n0");
  EXPECT_EQ(placements->front().stages[1].node, "id-n1");
  const std::string& reason = placements->front().reasons.back();
  EXPECT_TRUE(reason.starts_with("left out n2: ")) << reason;
  EXPECT_TRUE(reason.ends_with(" (and 1 like it)")) << reason;
}

TEST(Planner, MinimumNodesIsHonouredAndEveryStageHasALayer) {
  PlanOptions options = small_context();
  options.minimum_nodes = 3;
  std::vector<Device> devices = {device("a", 900 * kMiB, 5e9), device("b", 900 * kMiB, 9e9),
                                 device("c", 900 * kMiB, 7e9)};
  auto placements = plan(devices, {}, even_model(4, 100 * kMiB), options);
  ASSERT_TRUE(placements.has_value());
  EXPECT_EQ(placements->front().stages.size(), 3u);
  options.minimum_nodes = 4;
  EXPECT_EQ(plan(devices, {}, even_model(4, 100 * kMiB), options).error().code, ErrorCode::unavailable);
  options.minimum_nodes = 5;
  EXPECT_EQ(plan(devices, {}, even_model(4, 100 * kMiB), options).error().code, ErrorCode::invalid_argument);
}

TEST(Planner, EqualNodesGetEqualShares) {
  PlanOptions options = small_context();
  options.minimum_nodes = 3;
  std::vector<Device> devices = {device("a", 900 * kMiB, 9.9e9), device("b", 900 * kMiB, 10e9),
                                 device("c", 900 * kMiB, 10.1e9)};
  auto placements = plan(devices, {}, even_model(9, 100 * kMiB), options);
  ASSERT_TRUE(placements.has_value());
  for (const StagePlan& stage : placements->front().stages)
    EXPECT_EQ(stage.end_layer - stage.first_layer, 3u);
}

TEST(Planner, MoreNodesThanLayers) {
  std::vector<Device> devices;
  for (int i = 0; i < 12; ++i) devices.push_back(device(fmt::format("n{}", i), 101 * kMiB, 1e9));
  auto placements = plan(devices, {}, even_model(3, 100 * kMiB), small_context());
  ASSERT_TRUE(placements.has_value());
  EXPECT_EQ(placements->front().stages.size(), 3u);
}

TEST(Planner, NodesWithoutMemoryOrWithoutTheModelAreLeftOutInWords) {
  std::vector<Device> devices = {device("full", 0, 50e9), device("other", 4096 * kMiB, 50e9),
                                 device("good", 900 * kMiB, 1e9)};
  devices[1].holds_model = false;
  auto placements = plan(devices, {}, even_model(8, 100 * kMiB), small_context());
  ASSERT_TRUE(placements.has_value());
  EXPECT_EQ(placements->front().stages[0].node, "id-good");
  std::string reasons;
  for (const std::string& reason : placements->front().reasons) reasons += reason + "\n";
  EXPECT_NE(reasons.find("left out full: 0.0 MiB free, but one layer needs 100.0 MiB"), std::string::npos)
      << reasons;
  EXPECT_NE(reasons.find("left out other: does not hold the model"), std::string::npos) << reasons;
}

TEST(Planner, SaysWhatIsMissingWhenNothingFits) {
  auto placements = plan({device("alpha", 300 * kMiB, 1e9), device("beta", 200 * kMiB, 1e9)}, {},
                         even_model(8, 100 * kMiB), small_context());
  ASSERT_FALSE(placements.has_value());
  EXPECT_EQ(placements.error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(placements.error().message,
            "even with 1 tokens of context needs 800.0 MiB; alpha offers 300.0 MiB, beta offers 200.0 MiB: "
            "300.0 MiB are missing");
}

TEST(Planner, KvAndTiedEmbeddingsCount) {
  ModelDemand model = even_model(2, 100 * kMiB);
  for (LayerDemand& layer : model.layers) layer.kv_bytes_per_token = kMiB;
  model.embedding_bytes = model.head_bytes = 70 * kMiB;
  PlanOptions options = small_context();
  options.context_tokens = 10;
  options.concurrency = 2;
  auto memory = [&](bool tied) {
    model.tied_embedding = tied;
    return plan({device("a", 4096 * kMiB, 1e9)}, {}, model, options)->front().stages[0].memory_bytes / kMiB;
  };
  EXPECT_EQ(memory(true), 2 * (100 + 20) + 70u);
  EXPECT_EQ(memory(false), 2 * (100 + 20) + 140u);
}

TEST(Planner, StatesOfSequencesCount) {
  ModelDemand model = even_model(2, 100 * kMiB);
  model.layers[0].state_bytes_per_sequence = 3 * kMiB;
  PlanOptions options = small_context();
  auto memory = [&] {
    return plan({device("a", 4096 * kMiB, 1e9)}, {}, model, options)->front().stages[0].memory_bytes / kMiB;
  };
  EXPECT_EQ(memory(), 200u);
  options.state_slots = 16;
  EXPECT_EQ(memory(), 200u + 16 * 3);
}

TEST(Planner, ATokenOfAMixtureReadsItsExpertsOnlyAPromptAllOfThem) {
  ModelDemand model = even_model(4, 1000 * kMiB);
  for (LayerDemand& layer : model.layers) layer.active_bytes = 100 * kMiB;
  const auto placement = plan({device("a", 8192 * kMiB, 1000.0 * kMiB)}, {}, model, small_context())->front();
  EXPECT_NEAR(placement.tokens_per_second, 1 / 0.4, 1e-6);
  EXPECT_NEAR(placement.stages[0].decode_seconds, 0.4, 1e-6);
  EXPECT_GE(placement.first_token_seconds, 4.0);
  EXPECT_GE(placement.stages[0].memory_bytes, 4000 * kMiB);
}

TEST(Planner, OverflowingSizesAreAnError) {
  ModelDemand model = even_model(2, UINT64_MAX / 2);
  model.layers[0].kv_bytes_per_token = UINT64_MAX / 2;
  PlanOptions options;
  options.context_tokens = 4;
  EXPECT_EQ(plan({device("a", UINT64_MAX, 1e9)}, {}, model, options).error().code, ErrorCode::limit_exceeded);
}

TEST(Planner, ManyNodesAreNearTheExactAnswer) {
  std::mt19937 random(7);
  std::vector<Device> devices;
  for (int i = 0; i < 64; ++i) {
    devices.push_back(
        device(fmt::format("n{}", i), (500 + random() % 4000) * kMiB, 1e9 * (1 + random() % 30)));
  }
  ModelDemand model = even_model(126, 200 * kMiB);
  auto placements = plan(devices, {}, model, small_context());
  ASSERT_TRUE(placements.has_value());
  // No pipeline beats the fastest devices' memory filled in order without any hop.
  std::sort(devices.begin(), devices.end(), [](const Device& a, const Device& b) {
    return a.decode_bytes_per_second > b.decode_bytes_per_second;
  });
  double bound = 0;
  uint32_t left = 126;
  for (const Device& d : devices) {
    uint32_t layers = std::min<uint32_t>(left, static_cast<uint32_t>(d.free_memory_bytes / (200 * kMiB)));
    bound += layers * 200.0 * kMiB / d.decode_bytes_per_second;
    left -= layers;
  }
  double seconds = 1 / placements->front().tokens_per_second;
  EXPECT_GE(seconds, bound);
  EXPECT_LT(seconds, bound * 1.05 + 40 * 0.2e-3);
}

TEST(Planner, SameInputSamePlacement) {
  std::mt19937 random(3);
  RandomCase c = random_case(random, 6, 20, true);
  for (Device& d : c.devices) d.free_memory_bytes = 1000 * kMiB;
  auto once = plan(c.devices, c.links, c.model, c.options),
       again = plan(c.devices, c.links, c.model, c.options);
  ASSERT_TRUE(once.has_value());
  for (size_t i = 0; i < once->front().stages.size(); ++i) {
    EXPECT_EQ(once->front().stages[i].node, again->front().stages[i].node);
    EXPECT_EQ(once->front().stages[i].end_layer, again->front().stages[i].end_layer);
  }
}

}  // namespace
}  // namespace shoal::planner
