// The engine's border: what it loads, and which steps it refuses. Numbers of whole models are judged in
// runtime/.
#include "model/decoder_engine.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numeric>

#include "base/limits.h"

namespace shoal::model {
namespace {

using testing::HasSubstr;

class DecoderEngine : public testing::Test {
 protected:
  static constexpr uint32_t kPageTokens = 16;
  static constexpr uint32_t kPages = 4;

  DecoderEngine()
      : checkpoint_(*formats::Checkpoint::open(std::filesystem::path(SHOAL_SOURCE_DIR) /
                                               "tests/fixtures/models/llama")),
        spec_(*read_decoder_spec(checkpoint_)) {
    options_.stage = whole_model(spec_);
    options_.kv = {.type = engine::KvType::f32, .page_tokens = kPageTokens, .page_count = kPages};
    options_.threads = 1;
  }

  Result<std::unique_ptr<engine::Engine>> load() { return load_cpu_engine(checkpoint_, spec_, options_); }

  // A step of one sequence that fits; tests spoil it.
  struct OneSequence {
    std::vector<int32_t> tokens = {1, 2, 3};
    std::vector<int32_t> positions = {0, 1, 2};
    std::vector<uint32_t> pages = {2};
    engine::SequenceRows rows{.first_row = 0, .row_count = 3, .context_tokens = 0, .pages = {}};
    std::vector<uint32_t> output_rows = {2};

    engine::StepView view() {
      rows.pages = pages;
      return {tokens, positions, {&rows, 1}, output_rows};
    }
  };

  static void expect_refused(engine::Engine& engine, OneSequence step, const std::string& message,
                             std::span<const float> hidden = {}) {
    const auto output = engine.step(step.view(), hidden);
    ASSERT_FALSE(output.has_value()) << "expected: " << message;
    EXPECT_THAT(output.error().message, HasSubstr(message));
  }

  formats::Checkpoint checkpoint_;
  DecoderSpec spec_;
  CpuEngineOptions options_;
};

TEST_F(DecoderEngine, GivesLogitsOfTheWantedRows) {
  auto engine = load();
  ASSERT_TRUE(engine.has_value()) << engine.error().text();
  OneSequence step;
  step.output_rows = {2, 0};
  const auto logits = (*engine)->step(step.view(), {});
  ASSERT_TRUE(logits.has_value()) << logits.error().text();
  EXPECT_EQ(logits->size(), 2u * spec_.vocabulary_size);
  step.output_rows = {};
  EXPECT_EQ((*engine)->step(step.view(), {})->size(), 0u);
}

TEST_F(DecoderEngine, ReportsProgressToTheEnd) {
  std::vector<float> fractions;
  options_.progress = [&](float fraction) { fractions.push_back(fraction); };
  ASSERT_TRUE(load().has_value());
  ASSERT_GT(fractions.size(), spec_.layer_count());
  EXPECT_TRUE(std::ranges::is_sorted(fractions));
  EXPECT_EQ(fractions.front(), 0);
  EXPECT_EQ(fractions.back(), 1);
}

TEST_F(DecoderEngine, AStageHoldsItsPartOnly) {
  const uint64_t whole = (*load())->memory().weight_bytes;
  uint64_t parts = 0;
  const auto stages = even_stages(spec_, 2);
  ASSERT_TRUE(stages.has_value());
  for (const engine::StageRange& stage : *stages) {
    options_.stage = stage;
    const uint64_t part = (*load())->memory().weight_bytes;
    EXPECT_LT(part, whole);
    parts += part;
  }
  EXPECT_EQ(parts, whole);
}

TEST_F(DecoderEngine, EvenStagesCoverEveryLayerOnce) {
  for (uint32_t count = 1; count <= spec_.layer_count() + 1; ++count) {
    const auto stages = even_stages(spec_, count);
    ASSERT_TRUE(stages.has_value());
    uint32_t next = 0;
    for (const engine::StageRange& stage : *stages) {
      EXPECT_EQ(stage.first_layer, next);
      EXPECT_EQ(stage.embeds, &stage == &stages->front());
      EXPECT_EQ(stage.heads, &stage == &stages->back());
      next = stage.end_layer;
    }
    EXPECT_EQ(next, spec_.layer_count());
  }
  EXPECT_FALSE(even_stages(spec_, 0).has_value());
  EXPECT_FALSE(even_stages(spec_, spec_.layer_count() + 2).has_value());
}

TEST_F(DecoderEngine, RefusesStagesThatAreNotOfTheModel) {
  const uint32_t layers = spec_.layer_count();
  for (const engine::StageRange stage : {engine::StageRange{0, layers + 1, true, true},
                                         {2, 1, false, false},
                                         {1, 1, false, false},
                                         {1, layers, true, true},
                                         {0, 1, true, true}}) {
    options_.stage = stage;
    const auto engine = load();
    ASSERT_FALSE(engine.has_value()) << stage.first_layer << " to " << stage.end_layer;
    EXPECT_EQ(engine.error().code, ErrorCode::invalid_argument);
  }
}

TEST_F(DecoderEngine, RefusesWhatIsNotBuiltYet) {
  options_.shard = {.rank = 1, .count = 2};
  EXPECT_EQ(load().error().code, ErrorCode::invalid_argument);
  options_.shard = {};
  options_.kv.page_count = 0;
  EXPECT_EQ(load().error().code, ErrorCode::invalid_argument);
}

TEST_F(DecoderEngine, RefusesStepsThatDoNotFit) {
  auto engine = load();
  ASSERT_TRUE(engine.has_value());
  engine::Engine& e = **engine;
  OneSequence step;
  ASSERT_TRUE(e.step(step.view(), {}).has_value());

  step.tokens[1] = static_cast<int32_t>(spec_.vocabulary_size);
  expect_refused(e, step, "outside the vocabulary");
  step.tokens[1] = -1;
  expect_refused(e, step, "outside the vocabulary");
  step = {};
  step.positions[2] = 3;
  expect_refused(e, step, "row 2 has position 3");
  step.positions = {0, 1};
  expect_refused(e, step, "2 positions for 3 rows");
  step = {};
  step.pages = {kPages};
  expect_refused(e, step, "page 4 of 4");
  step.pages = {};
  expect_refused(e, step, "0 pages");
  step = {};
  step.rows.context_tokens = kPageTokens - 2;
  expect_refused(e, step, "for a sequence of 17");
  step.rows.context_tokens = 0xFFFFFFFF;
  expect_refused(e, step, "more than");
  step = {};
  step.rows.row_count = 4;
  expect_refused(e, step, "rows 0 + 4");
  step.rows.row_count = 2;
  expect_refused(e, step, "2 rows of 3");
  step.rows = {.first_row = 1, .row_count = 2, .context_tokens = 0, .pages = {}};
  expect_refused(e, step, "rows 1 + 2");
  step = {};
  step.output_rows = {3};
  expect_refused(e, step, "output row 3");
  step.output_rows = {0, 1, 2, 2};
  expect_refused(e, step, "4 output rows");
  const std::vector<float> hidden(3 * spec_.hidden_size);
  expect_refused(e, {}, "hidden values came in", hidden);
}

TEST_F(DecoderEngine, AStageInTheMiddleWantsHiddenRowsOfTheRightSize) {
  options_.stage = {.first_layer = 1, .end_layer = 2, .embeds = false, .heads = false};
  auto engine = load();
  ASSERT_TRUE(engine.has_value()) << engine.error().text();
  std::vector<float> hidden(3 * spec_.hidden_size, 0.5f);
  OneSequence step;
  EXPECT_EQ((*engine)->step(step.view(), hidden)->size(), hidden.size());
  expect_refused(**engine, {}, "hidden values came in", std::span(hidden).first(hidden.size() - 1));
  expect_refused(**engine, {}, "hidden values came in");
}

TEST_F(DecoderEngine, AStepWithoutRowsDoesNothing) {
  auto engine = load();
  ASSERT_TRUE(engine.has_value());
  const auto output = (*engine)->step({}, {});
  ASSERT_TRUE(output.has_value());
  EXPECT_TRUE(output->empty());
}

}  // namespace
}  // namespace shoal::model
