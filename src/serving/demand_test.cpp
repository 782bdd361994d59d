// What a model is said to need, against what it takes.
#include "serving/demand.h"

#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <numeric>

#include "base/limits.h"
#include "model/decoder_engine.h"
#include "serving/step_scratch.h"

namespace shoal::serving {
namespace {

// So many that an arena's smallest size does not matter for these tiny models.
constexpr uint32_t kSequences = limits::kMaxActiveSequences, kSequenceRows = 125;
constexpr uint32_t kRows = kSequences * kSequenceRows;

ModelCard demo_card() {
  const hub::ModelStore store({std::filesystem::path(SHOAL_SOURCE_DIR) / "models/demo"});
  return **read_model_card(*store.resolve("shoal-demo"));
}

TEST(Demand, SaysWhatTheModelsCostSays) {
  ModelCard card = demo_card();
  card.tied = true;
  card.cost.layers.assign(2, {.weight_bytes = 100,
                              .active_bytes = 30,
                              .parameters = 50,
                              .flops_per_token = 60,
                              .kv_values_per_token = 32,
                              .state_bytes = 4000});
  card.cuts.assign(2, {.head_pieces = 8,
                       .kv_pieces = 2,
                       .width_pieces = 5,
                       .mixer_bytes = 40,
                       .expert_bytes = 0,
                       .whole_bytes = 3,
                       .kv_is_whole = false,
                       .sums = 2});
  const planner::ModelDemand demand = model_demand(card, engine::KvType::q8);
  ASSERT_EQ(demand.layers.size(), 2u);
  EXPECT_EQ(demand.layers[1].weight_bytes, 100u);
  EXPECT_EQ(demand.layers[1].active_bytes, 30u);
  EXPECT_EQ(demand.layers[1].kv_bytes_per_token, 34u);
  EXPECT_EQ(demand.layers[1].state_bytes_per_sequence, 4000u);
  EXPECT_EQ(demand.layers[0].query_heads, 8u);
  EXPECT_EQ(demand.layers[0].kv_heads, 2u);
  EXPECT_EQ(demand.layers[0].feed_forward_units, 5u);
  EXPECT_EQ(demand.layers[0].attention_bytes, 40u);
  EXPECT_EQ(demand.layers[0].replicated_bytes, 3u);
  EXPECT_TRUE(demand.tied_embedding);
}

TEST(Demand, WhatWasAskedForIsKept) {
  const ModelCard card = demo_card();
  for (const planner::PlanOptions& attempt : plan_attempts(card, {}))
    EXPECT_EQ(attempt.strategy, planner::Strategy::pipeline) << "others change the order of sums";
  const auto attempts = plan_attempts(card, {.context_tokens = 300,
                                             .strategy = planner::Strategy::tensor,
                                             .objective = planner::Objective::throughput,
                                             .wire = planner::WireFormat::bf16,
                                             .concurrency = 7});
  ASSERT_EQ(attempts.size(), 1u);
  EXPECT_EQ(attempts[0].context_tokens, 300u);
  EXPECT_EQ(attempts[0].strategy, planner::Strategy::tensor);
  EXPECT_EQ(attempts[0].objective, planner::Objective::throughput);
  EXPECT_EQ(attempts[0].wire, planner::WireFormat::bf16);
  EXPECT_EQ(attempts[0].concurrency, 7u);
}

TEST(Demand, StatesAreHeldForAFewSequencesOnlyWhereThereAreStates) {
  ModelCard card = demo_card();
  for (const planner::PlanOptions& attempt : plan_attempts(card, {})) EXPECT_EQ(attempt.state_slots, 0u);
  card.recurrent = true;
  uint32_t before = UINT32_MAX;
  for (const planner::PlanOptions& attempt : plan_attempts(card, {})) {
    EXPECT_GE(attempt.state_slots, attempt.concurrency);
    EXPECT_LE(attempt.state_slots, limits::kMaxActiveSequences);
    EXPECT_LE(attempt.state_slots, before) << "later attempts need less";
    before = attempt.state_slots;
  }
}

Result<uint64_t> measured_scratch(const formats::Checkpoint& checkpoint, const model::DecoderSpec& spec) {
  constexpr uint32_t kPageTokens = 128;
  model::CpuEngineOptions options;
  options.stage = model::whole_model(spec);
  options.kv = {.type = engine::KvType::f16,
                .page_tokens = kPageTokens,
                .page_count = kSequences,
                .state_slots = kSequences};
  options.threads = 2;
  SHOAL_TRY(const auto engine, model::load_cpu_engine(checkpoint, spec, options));
  std::vector<uint32_t> pages(kSequences), output_rows;
  std::iota(pages.begin(), pages.end(), 0u);
  const std::vector<int32_t> tokens(kRows, 1);
  std::vector<int32_t> positions;
  std::vector<engine::SequenceRows> sequences;
  for (uint32_t index = 0; index < kSequences; ++index) {
    for (uint32_t position = 0; position < kSequenceRows; ++position)
      positions.push_back(static_cast<int32_t>(position));
    sequences.push_back({.first_row = index * kSequenceRows,
                         .row_count = kSequenceRows,
                         .context_tokens = 0,
                         .pages = std::span(pages).subspan(index, 1),
                         .prompt_tokens = kSequenceRows,
                         .state_slot = index});
    output_rows.push_back((index + 1) * kSequenceRows - 1);
  }
  // After the first step the arena joins its pieces.
  for (int step = 0; step < 2; ++step)
    SHOAL_TRY_VOID(engine->step({tokens, positions, sequences, output_rows}, {}));
  return engine->memory().scratch_bytes;
}

TEST(StepScratch, IsNoLessThanAnEngineTakesNorFarMore) {
  size_t measured_models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(SHOAL_SOURCE_DIR) /
                                                               "tests/fixtures/models")) {
    SCOPED_TRACE(entry.path().filename().string());
    const auto checkpoint = formats::Checkpoint::open(entry.path());
    if (!checkpoint) continue;
    const auto spec = model::read_decoder_spec(*checkpoint);
    if (!spec) continue;
    const Result<uint64_t> measured = measured_scratch(*checkpoint, *spec);
    ASSERT_TRUE(measured.has_value()) << measured.error().text();
    const uint64_t logits = kSequences * uint64_t{spec->vocabulary_size} * sizeof(float);
    const uint64_t predicted = step_scratch_bytes(*spec, kRows) + logits;
    EXPECT_LE(*measured, predicted + 4 * limits::kMiB);  // an arena grows in such steps
    EXPECT_LE(predicted, 4 * *measured);
    RecordProperty(entry.path().filename().string(), fmt::format("{} of {}", *measured, predicted));
    ++measured_models;
  }
  EXPECT_GE(measured_models, 3u);
}

}  // namespace
}  // namespace shoal::serving
