#include "serving/drift_watch.h"

#include <gtest/gtest.h>

namespace shoal::serving {
namespace {

constexpr const char* kAda = "00000000000000aa";
constexpr const char* kBob = "00000000000000bb";
constexpr const char* kCleo = "00000000000000cc";

planner::ModelDemand demand() {
  planner::ModelDemand model;
  model.name = "m";
  model.layers.assign(10,
                      {.weight_bytes = 100 << 20, .kv_bytes_per_token = 100, .flops_per_token = 200 << 20});
  model.hidden_bytes_per_token = 4096;
  return model;
}

// Two machines have room for half of it each, a third for nothing yet.
cluster::PlannerInput nodes(uint64_t third_memory) {
  cluster::PlannerInput input;
  for (const auto& [id, name, memory] : {std::tuple(kAda, "ada", 0ull),
                                         {kBob, "bob", 0ull},
                                         {kCleo, "cleo", (unsigned long long)third_memory}}) {
    input.devices.push_back({.node = id,
                             .name = name,
                             .free_memory_bytes = memory,
                             .decode_bytes_per_second = 10e9,
                             .prefill_flops_per_second = 1e12});
  }
  return input;
}

cluster::InstanceFact instance() {
  cluster::InstanceFact fact;
  fact.ranks = {{.node = kAda, .first_layer = 0, .end_layer = 5, .memory_bytes = 600 << 20},
                {.node = kBob, .first_layer = 5, .end_layer = 10, .memory_bytes = 600 << 20}};
  fact.layer_count = 10;
  fact.context_tokens = 1024;
  fact.kv_page_tokens = 32;
  fact.kv_page_count = 32;
  return fact;
}

constexpr double kPredicted = 5 * (100 << 20) / 10e9;  // of a stage, but for small change

void observe(DriftWatch& watch, const cluster::PlannerInput& now, double first, double second) {
  for (int i = 0; i < 40; ++i) {
    const double seconds[] = {kPredicted * first, kPredicted * second};
    ASSERT_TRUE(watch.observe(instance(), demand(), now, seconds).has_value());
  }
}

TEST(DriftWatch, SaysNothingWhileAllIsAsPredicted) {
  DriftWatch watch;
  observe(watch, nodes(0), 1.05, 1.02);
  EXPECT_TRUE(watch.advice(instance(), demand(), nodes(0))->empty());
}

TEST(DriftWatch, NamesAMachineThatIsSlowerThanMeasured) {
  DriftWatch watch;
  observe(watch, nodes(0), 1.05, 2);
  const auto words = watch.advice(instance(), demand(), nodes(0)).value();
  ASSERT_EQ(words.size(), 1u);
  EXPECT_NE(words[0].find("bob takes"), std::string::npos) << words[0];
  EXPECT_NE(words[0].find("longer than measured"), std::string::npos) << words[0];
}

TEST(DriftWatch, TellsOfABetterPlacementWhenThereIsRoomForOne) {
  DriftWatch watch;
  observe(watch, nodes(2000 << 20), 1, 3);
  const auto words = watch.advice(instance(), demand(), nodes(2000ull << 20)).value();
  ASSERT_EQ(words.size(), 2u);
  EXPECT_NE(words[0].find("a better placement exists"), std::string::npos) << words[0];
}

TEST(DriftWatch, ANodeThatIsGoneIsAnError) {
  DriftWatch watch;
  cluster::PlannerInput now = nodes(0);
  now.devices.erase(now.devices.begin());
  const double seconds[] = {1, 1};
  EXPECT_FALSE(watch.observe(instance(), demand(), now, seconds).has_value());
}

}  // namespace
}  // namespace shoal::serving
