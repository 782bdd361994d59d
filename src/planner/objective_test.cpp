// Objectives, links and what is said of them.
#include "planner/objective.h"

#include <algorithm>
#include <gtest/gtest.h>

#include "planner/costs.h"
#include "planner/made_cases.h"

namespace shoal::planner {
namespace {

std::string all_reasons(const Placement& placement) {
  std::string text;
  for (const std::string& reason : placement.reasons) text += reason + "\n";
  return text;
}

std::vector<Device> equals(uint32_t count, uint64_t memory_bytes, double speed) {
  std::vector<Device> devices;
  for (uint32_t i = 0; i < count; ++i) devices.push_back(device(fmt::format("n{}", i), memory_bytes, speed));
  return devices;
}

TEST(Objective, OneUserWantsFewStagesManyUsersWantThemAll) {
  const auto devices = equals(4, 4000 * kMiB, 10e9);
  const auto links = mesh(4, 1e-3, 1e8);
  const ModelDemand model = even_model(16, 100 * kMiB);
  PlanOptions options = small_context();
  options.concurrency = 16;
  auto latency = plan(devices, links, model, options);
  options.objective = Objective::throughput;
  auto throughput = plan(devices, links, model, options);
  ASSERT_TRUE(latency && throughput);
  EXPECT_EQ(latency->front().stages.size(), 1u);
  EXPECT_EQ(throughput->front().stages.size(), 4u);
  EXPECT_GT(throughput->front().batch_tokens_per_second, 2 * latency->front().batch_tokens_per_second);
  EXPECT_GT(latency->front().tokens_per_second, throughput->front().tokens_per_second);
}

TEST(Objective, ALongPromptStreamsThroughStagesAShortOneDoesNot) {
  const auto devices = equals(4, 4000 * kMiB, 10e9);
  PlanOptions options = small_context();
  options.objective = Objective::ttft;
  options.prompt_tokens = 100;
  const ModelDemand model = even_model(16, 100 * kMiB);
  const auto links = mesh(4, 1e-3, 1e8);
  auto brief = plan(devices, links, model, options);
  options.prompt_tokens = 8192;
  auto lengthy = plan(devices, links, model, options);
  ASSERT_TRUE(brief && lengthy);
  EXPECT_EQ(brief->front().stages.size(), 1u);
  EXPECT_EQ(lengthy->front().stages.size(), 4u);
  // 16 chunks of 512 rows: the first through all four stages, the others one stage time apart.
  double stage = 512 * 4 * 200.0 * kMiB / 100e9;
  EXPECT_NEAR(lengthy->front().first_token_seconds, (4 + 15) * stage, 0.1);
}

TEST(Objective, AFastPrefillerLeadsWhenTheFirstTokenCounts) {
  auto devices = equals(2, 4000 * kMiB, 10e9);
  devices[0].decode_bytes_per_second = 20e9;
  devices[1].prefill_flops_per_second = 10 * devices[0].prefill_flops_per_second;
  const ModelDemand model = even_model(8, 100 * kMiB);
  PlanOptions options = small_context();
  EXPECT_EQ(plan(devices, {}, model, options)->front().stages[0].node, "id-n0");
  options.objective = Objective::ttft;
  EXPECT_EQ(plan(devices, {}, model, options)->front().stages[0].node, "id-n1");
}

TEST(Objective, ABatchReadsWeightsOnceUntilArithmeticBounds) {
  PlanOptions options = small_context();
  const ModelDemand model = even_model(8, 100 * kMiB);
  auto devices = equals(1, 4000 * kMiB, 10e9);
  auto batch = [&](uint32_t users) {
    options.concurrency = users;
    return plan(devices, {}, model, options)->front().batch_tokens_per_second;
  };
  EXPECT_NEAR(batch(4) / batch(1), 4, 1e-6);
  // 2 flops a byte at 100 Gflop/s against 10 GB/s: five rows are free.
  EXPECT_NEAR(batch(50) / batch(1), 5, 1e-6);
}

TEST(Objective, ABatchOfAMixtureReadsTheExpertsThatAnyRowChose) {
  LayerDemand layer;
  layer.weight_bytes = 1000;
  layer.expert_bytes = 800;
  layer.expert_count = 8;
  layer.experts_used = 2;
  layer.active_bytes = 400;
  EXPECT_DOUBLE_EQ(active_bytes(layer, 1), 400);
  EXPECT_NEAR(active_bytes(layer, 2), 200 + 800 * (1 - 0.75 * 0.75), 1e-9);
  EXPECT_NEAR(active_bytes(layer, 1000), 1000, 1e-6);
}

TEST(Objective, WifiIsLeftOutAndNamed) {
  auto devices = equals(2, 900 * kMiB, 10e9);
  devices.push_back(device("beta", 900 * kMiB, 40e9));
  auto links = mesh(3, 0.2e-3, 1e8);
  for (LinkFigures& link : links) {
    if (link.from != 2 && link.to != 2) continue;
    link = {link.from, link.to, 30e-3, 5e6, 90e-3, LinkKind::wifi};
  }
  PlanOptions options = small_context();
  options.minimum_nodes = 2;
  auto placements = plan(devices, links, even_model(8, 10 * kMiB), options);
  ASSERT_TRUE(placements.has_value());
  std::string reasons = all_reasons(placements->front());
  EXPECT_NE(reasons.find("left out beta: Wi-Fi link adds "), std::string::npos) << reasons;
}

TEST(Objective, Bf16OnTheWireIsWorthItOnSlowLinksOnly) {
  ModelDemand model = even_model(16, 100 * kMiB);
  model.hidden_bytes_per_token = 1 << 20;
  auto of = [&](double bytes_per_second) {
    return plan(equals(2, 900 * kMiB, 10e9), mesh(2, 0.2e-3, bytes_per_second), model, small_context())
        ->front();
  };
  Placement slow = of(1e7), fast = of(1e11);
  EXPECT_GT(slow.bf16_tokens_per_second, 1.05 * slow.tokens_per_second);
  EXPECT_NE(all_reasons(slow).find("--wire bf16 would give"), std::string::npos) << all_reasons(slow);
  EXPECT_LT(fast.bf16_tokens_per_second, 1.01 * fast.tokens_per_second);
  EXPECT_EQ(all_reasons(fast).find("--wire"), std::string::npos);
  // Half of a row's 1 MiB at 10 MB/s, once: the token's way back carries no row.
  EXPECT_NEAR(1 / slow.tokens_per_second - 1 / slow.bf16_tokens_per_second, (1 << 19) / 1e7, 1e-6);
}

TEST(Objective, SixtyFourNodesTakeBoundedWork) {
  std::mt19937 random(11);
  std::vector<Device> devices;
  std::vector<LinkFigures> links;
  for (uint32_t i = 0; i < 64; ++i) {
    devices.push_back(
        device(fmt::format("n{}", i), (500 + random() % 4000) * kMiB, 1e9 * (1 + random() % 30)));
    for (uint32_t j = 0; j < 64; ++j)
      if (i != j) links.push_back({i, j, 1e-4 + 1e-6 * static_cast<double>(random() % 300), 1e8});
  }
  PlanOptions options = small_context();
  options.concurrency = 16;
  options.prompt_tokens = 4000;
  constexpr uint64_t kWork = 3'000'000;
  for (Objective objective : {Objective::latency, Objective::throughput, Objective::ttft}) {
    options.objective = objective;
    auto problem = make_problem(devices, std::vector<bool>(64, true), links,
                                shareable_model(80, 200 * kMiB, 8, 64), options);
    ASSERT_TRUE(problem.has_value());
    GroupSet set = candidate_groups(*problem, Strategy::automatic);
    EXPECT_LE(set.groups.size(), 700u);
    Optimum found = optimise(*problem, set, Strategy::automatic, kWork);
    EXPECT_FALSE(found.cuts.empty());
    EXPECT_LE(found.work, 2 * kWork);
  }
}

TEST(Costs, UnmeasuredDevicesPrefillByTheirThreads) {
  auto first_token = [](uint32_t threads) {
    Device unmeasured = device("a", 4000 * kMiB, 1e12);
    unmeasured.prefill_flops_per_second = 0;
    unmeasured.threads = threads;
    return plan({unmeasured}, {}, even_model(8, 100 * kMiB), small_context())->front().first_token_seconds;
  };
  EXPECT_NEAR(first_token(8) / first_token(16), 2, 1e-6);
  EXPECT_NEAR(first_token(0) / first_token(2), 1, 1e-6);
}

TEST(Costs, UnmeasuredLinksBehaveAsTheirKindUsuallyDoes) {
  Path wifi = path_of({0, 1, 0, 0, 0, LinkKind::wifi}), wire = path_of({0, 1, 0, 0, 0, LinkKind::ethernet});
  EXPECT_GT(wifi.one_way_seconds, 5 * wire.one_way_seconds);
  EXPECT_GT(latency_seconds(wifi, 56), latency_seconds(wifi, 1));
  Path measured = path_of({0, 1, 1e-3, 1e8, 0, LinkKind::wifi});
  EXPECT_DOUBLE_EQ(message_seconds(measured, 1e6), 0.5e-3 + 1e-2);
}

TEST(Costs, SumsOfManyRowsGoInSlices) {
  Path path = path_of({0, 1, 200e-6, 1e9, 0, LinkKind::ethernet});
  EXPECT_EQ(all_reduce_seconds(path, 1, 1e6), 0);
  double small = all_reduce_seconds(path, 4, 16e3), large = all_reduce_seconds(path, 4, 16e6);
  EXPECT_NEAR(small, 100e-6 + 3 * 16e-6, 5e-6);
  EXPECT_NEAR(large, 2 * 0.75 * 16e-3, 3e-4);
}

}  // namespace
}  // namespace shoal::planner
