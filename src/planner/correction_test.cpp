#include "planner/correction.h"

#include <gtest/gtest.h>

#include "planner/made_cases.h"
#include "planner/predict.h"

namespace shoal::planner {
namespace {

struct TwoNodes {
  std::vector<Device> devices = {device("a", 900 * kMiB, 10e9), device("b", 900 * kMiB, 10e9),
                                 device("c", 900 * kMiB, 9e9)};
  std::vector<LinkFigures> links = mesh(3, 0.2e-3, 1e8);
  ModelDemand model = even_model(12, 100 * kMiB);
  PlanOptions options = small_context();

  Placement best() const { return plan(devices, links, model, options)->front(); }
};

void observe(Correction& correction, const std::string& node, double factor, int times) {
  for (int i = 0; i < times; ++i) correction.observe_rank(node, 0.01, 0.01 * factor);
}

TEST(Correction, AFactorCountsOnlyAfterSeveralObservations) {
  Correction correction;
  observe(correction, "id-a", 2, kLeastObservations - 1);
  EXPECT_EQ(correction.device_factor("id-a"), 1);
  observe(correction, "id-a", 2, 1);
  EXPECT_NEAR(correction.device_factor("id-a"), 2, 1e-9);
  EXPECT_EQ(correction.device_factor("id-b"), 1);
}

TEST(Correction, OneSlowStepIsNoDriftAndASlowMachineIs) {
  Correction correction;
  observe(correction, "id-a", 1, 50);
  observe(correction, "id-a", 5, 1);
  EXPECT_TRUE(correction.drifts().empty());
  observe(correction, "id-a", 1.4, 60);
  observe(correction, "id-b", 1.1, 60);
  ASSERT_EQ(correction.drifts().size(), 1u);
  EXPECT_EQ(correction.drifts()[0].node, "id-a");
  EXPECT_NEAR(correction.drifts()[0].factor, 1.4, 0.02);
  EXPECT_EQ(drift_words({"id-a", "", 1.4}, TwoNodes().devices), "a takes 40 % longer than measured");
  EXPECT_EQ(drift_words({"id-a", "id-b", 0.7}, TwoNodes().devices),
            "the link from a to b takes 30 % less time than measured");
}

TEST(Correction, NonsenseIsIgnored) {
  Correction correction;
  for (int i = 0; i < 20; ++i) {
    correction.observe_rank("id-a", 0, 1);
    correction.observe_rank("id-a", 1, -1);
    correction.observe_rank("id-a", NAN, 1);
    correction.observe_link("id-a", "id-b", 1, INFINITY);
  }
  EXPECT_EQ(correction.device_factor("id-a"), 1);
  EXPECT_EQ(correction.link_factor("id-a", "id-b"), 1);
}

TEST(Correction, FiguresAreCorrectedSoThatThePredictionIsWhatWasObserved) {
  TwoNodes nodes;
  Placement placement = nodes.best();
  ASSERT_EQ(placement.stages.size(), 2u);
  Correction correction;
  for (int i = 0; i < 20; ++i) {
    correction.observe_stage(placement.stages[0], placement.stages[0].decode_seconds,
                             1.5 * placement.stages[0].decode_seconds);
    correction.observe_link(placement.stages[0].node, placement.stages[1].node,
                            placement.stages[0].hop_seconds, 3 * placement.stages[0].hop_seconds);
  }
  correction.correct(nodes.devices, nodes.links);
  auto corrected = predict(nodes.devices, nodes.links, nodes.model, nodes.options, placement.stages);
  ASSERT_TRUE(corrected.has_value()) << corrected.error().text();
  EXPECT_NEAR(corrected->stages[0].decode_seconds / placement.stages[0].decode_seconds, 1.5, 1e-6);
  EXPECT_NEAR(corrected->stages[0].hop_seconds / placement.stages[0].hop_seconds, 3, 1e-6);
  EXPECT_NEAR(corrected->stages[1].decode_seconds, placement.stages[1].decode_seconds, 1e-12);
}

TEST(Correction, ABetterPlacementIsProposedOnceADeviceIsSlow) {
  TwoNodes nodes;
  Placement running = nodes.best();
  Correction correction;
  auto find = [&] {
    return find_better(nodes.devices, nodes.links, nodes.model, nodes.options, running.stages, correction);
  };
  auto at_first = find();
  ASSERT_TRUE(at_first.has_value()) << at_first.error().text();
  EXPECT_FALSE(at_first->has_value());
  observe(correction, running.stages[0].node, 3, 40);
  auto later = find();
  ASSERT_TRUE(later.has_value() && later->has_value());
  EXPECT_GT((*later)->gain, 0.5);
  EXPECT_TRUE((*later)->words.starts_with("a better placement exists: gain ")) << (*later)->words;
  for (const StagePlan& stage : (*later)->proposed.stages) EXPECT_NE(stage.node, running.stages[0].node);
}

TEST(Correction, WhatAPlanPredictsIsWhatPredictSaysOfIt) {
  TwoNodes nodes;
  nodes.model = shareable_model(12, 100 * kMiB, 8, 64);
  for (Strategy strategy : {Strategy::pipeline, Strategy::tensor, Strategy::automatic}) {
    nodes.options.strategy = strategy;
    Placement placement = nodes.best();
    auto again = predict(nodes.devices, nodes.links, nodes.model, nodes.options, placement.stages);
    ASSERT_TRUE(again.has_value()) << again.error().text();
    EXPECT_NEAR(again->tokens_per_second, placement.tokens_per_second, 1e-9 * placement.tokens_per_second);
    auto step = predict_step(nodes.devices, nodes.links, nodes.model, placement.stages, 1, 1);
    ASSERT_TRUE(step.has_value());
    for (size_t i = 0; i < step->size(); ++i)
      EXPECT_NEAR((*step)[i], placement.stages[i].decode_seconds, 1e-12);
  }
}

TEST(Correction, StagesThatAreNoneOfTheModelAreRefused) {
  TwoNodes nodes;
  Placement placement = nodes.best();
  auto code = [&]() -> std::optional<ErrorCode> {
    auto predicted = predict(nodes.devices, nodes.links, nodes.model, nodes.options, placement.stages);
    if (predicted) return std::nullopt;
    return predicted.error().code;
  };
  placement.stages[0].ranks[0].node = "id-elsewhere";
  EXPECT_EQ(code(), ErrorCode::not_found);
  placement.stages.pop_back();
  EXPECT_EQ(code(), ErrorCode::invalid_argument);
  placement.stages.clear();
  EXPECT_EQ(code(), ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace shoal::planner
