// Stage on an engine that only remembers what it was asked: what steps do to tables, and which steps are
// refused.
#include "runtime/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <set>

#include "base/limits.h"

namespace shoal::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kHidden = 2;
constexpr uint32_t kVocabulary = 5;
constexpr uint32_t kPageTokens = 4;
constexpr uint32_t kPages = 8;

struct SeenSequence {
  uint32_t first_row, row_count, context_tokens;
  std::vector<uint32_t> pages;
  uint32_t prompt_tokens, state_slot;
};

struct Seen {
  std::vector<SeenSequence> sequences;
  std::vector<int32_t> positions;
  std::vector<uint32_t> output_rows;
  std::vector<std::pair<uint32_t, uint32_t>> copies;
  std::vector<float> hidden_in;
};

// The logits of a row favour the token after its own; hidden rows hold the token id.
class RecordingEngine final : public engine::Engine {
 public:
  RecordingEngine(Seen& seen, bool heads, uint32_t state_slots) : seen_(seen), heads_(heads) {
    kv_.state_slots = state_slots;
  }
  uint32_t hidden_size() const override { return kHidden; }
  uint32_t vocabulary_size() const override { return kVocabulary; }
  engine::EngineMemory memory() const override { return {}; }
  const engine::KvConfig& kv() const override { return kv_; }
  void copy_page(uint32_t from, uint32_t to) override { seen_.copies.emplace_back(from, to); }

  Result<std::span<const float>> step(const engine::StepView& step,
                                      std::span<const float> hidden_in) override {
    seen_.sequences.clear();
    for (const engine::SequenceRows& rows : step.sequences)
      seen_.sequences.push_back({rows.first_row,
                                 rows.row_count,
                                 rows.context_tokens,
                                 {rows.pages.begin(), rows.pages.end()},
                                 rows.prompt_tokens,
                                 rows.state_slot});
    seen_.positions.assign(step.positions.begin(), step.positions.end());
    seen_.output_rows.assign(step.output_rows.begin(), step.output_rows.end());
    seen_.hidden_in.assign(hidden_in.begin(), hidden_in.end());
    values_.clear();
    if (heads_) {
      for (uint32_t row : step.output_rows)
        for (uint32_t token = 0; token < kVocabulary; ++token)
          values_.push_back(token == (static_cast<uint32_t>(step.token_ids[row]) + 1) % kVocabulary ? 3.0f
                                                                                                    : 0.0f);
    } else {
      for (int32_t token : step.token_ids) values_.insert(values_.end(), kHidden, static_cast<float>(token));
    }
    return std::span<const float>(values_);
  }

 private:
  Seen& seen_;
  bool heads_;
  engine::KvConfig kv_{.type = engine::KvType::f32, .page_tokens = kPageTokens, .page_count = kPages};
  std::vector<float> values_;
};

class StageTest : public testing::Test {
 protected:
  Stage make(bool heads = true, uint32_t state_slots = 0) {
    return Stage(std::make_unique<RecordingEngine>(seen_, heads, state_slots), heads);
  }

  static Step starting(SequenceId id, std::vector<int32_t> tokens, std::vector<uint32_t> pages,
                       SamplingParameters sampling = {.temperature = 0}) {
    Step step{.id = 1};
    step.started = {{.sequence = id, .sampling = std::move(sampling)}};
    step.sequences = {{.sequence = id,
                       .row_count = static_cast<uint32_t>(tokens.size()),
                       .samples = true,
                       .pages = std::move(pages)}};
    step.token_ids = std::move(tokens);
    return step;
  }
  static Step next_row(SequenceId id, uint32_t context, int32_t token, uint32_t first_page = 0,
                       std::vector<uint32_t> pages = {}) {
    Step step{.id = 2};
    step.sequences = {{.sequence = id,
                       .context_tokens = context,
                       .row_count = 1,
                       .samples = true,
                       .first_page_index = first_page,
                       .pages = std::move(pages)}};
    step.token_ids = {token};
    return step;
  }
  static void expect_refused(Stage& stage, const Step& step, const std::string& message) {
    const auto output = stage.run(step, {});
    ASSERT_FALSE(output.has_value()) << "expected: " << message;
    EXPECT_THAT(output.error().message, HasSubstr(message));
  }

  Seen seen_;
};

TEST_F(StageTest, SamplesAfterTheLastRowOfEachSequenceThatAsksForIt) {
  Stage stage = make();
  Step step = starting(7, {1, 2, 3}, {4});
  step.started.push_back({.sequence = 8, .sampling = {.temperature = 0}});
  step.sequences.push_back({.sequence = 8, .row_count = 2, .samples = false, .pages = {2}});
  step.started.push_back({.sequence = 9, .sampling = {.temperature = 0}});
  step.sequences.push_back({.sequence = 9, .row_count = 1, .samples = true, .pages = {3}});
  step.token_ids.insert(step.token_ids.end(), {0, 0, 1});
  const auto output = stage.run(step, {});
  ASSERT_TRUE(output.has_value()) << output.error().text();
  EXPECT_TRUE(output->hidden.empty());
  ASSERT_EQ(output->tokens.size(), 2u);
  EXPECT_EQ(output->tokens[0].sequence, 7u);
  EXPECT_EQ(output->tokens[0].sampled.token, 4);
  EXPECT_EQ(output->tokens[1].sequence, 9u);
  EXPECT_EQ(output->tokens[1].sampled.token, 2);
  EXPECT_THAT(seen_.output_rows, ElementsAre(2, 5));
  EXPECT_THAT(seen_.positions, ElementsAre(0, 1, 2, 0, 1, 0));
}

TEST_F(StageTest, AStageInTheMiddlePassesHiddenRowsOn) {
  Stage stage = make(false);
  const std::vector<float> hidden(6, 1.5f);
  const auto output = stage.run(starting(7, {1, 2, 3}, {4}), hidden);
  ASSERT_TRUE(output.has_value());
  EXPECT_THAT(output->hidden, ElementsAre(1, 1, 2, 2, 3, 3));
  EXPECT_TRUE(output->tokens.empty());
  EXPECT_EQ(seen_.hidden_in, hidden);
}

// Its rank of the last stage must take part in the same rows as the one that samples.
TEST_F(StageTest, AStageThatDoesNotSampleStillTellsItsEngineWhichRowsAreWanted) {
  Stage stage = make(false);
  ASSERT_TRUE(stage.run(starting(7, {1, 2, 3}, {4}), {}).has_value());
  EXPECT_THAT(seen_.output_rows, ElementsAre(2));
}

TEST_F(StageTest, PagesReplaceTheTableFromTheirIndexOn) {
  Stage stage = make();
  ASSERT_TRUE(stage.run(starting(7, {1, 2, 3, 4}, {4, 5}), {}).has_value());
  ASSERT_TRUE(stage.run(next_row(7, 4, 0), {}).has_value());
  EXPECT_THAT(seen_.sequences[0].pages, ElementsAre(4, 5));
  ASSERT_TRUE(stage.run(next_row(7, 5, 0, 1, {6, 7}), {}).has_value());
  EXPECT_THAT(seen_.sequences[0].pages, ElementsAre(4, 6, 7));
  EXPECT_EQ(seen_.sequences[0].context_tokens, 5u);
}

TEST_F(StageTest, RowsMayStartBehindACachedPrefix) {
  Stage stage = make();
  Step step = starting(7, {1, 2}, {4, 5});
  step.sequences[0].context_tokens = 4;
  ASSERT_TRUE(stage.run(step, {}).has_value());
  EXPECT_THAT(seen_.positions, ElementsAre(4, 5));
}

TEST_F(StageTest, CopiesPagesBeforeTheRowsRun) {
  Stage stage = make();
  Step step = starting(7, {1}, {4});
  step.page_copies = {{3, 4}};
  ASSERT_TRUE(stage.run(step, {}).has_value());
  EXPECT_THAT(seen_.copies, ElementsAre(std::pair(3u, 4u)));
}

TEST_F(StageTest, PenaltiesCountThePromptTheCommittedAnswerAndWhatWasSampled) {
  Stage stage = make();
  Step step = starting(7, {0}, {4}, {.temperature = 0, .frequency_penalty = 2});
  step.started[0].answer = {1};
  // The logits favour token 1 by 3; it was said once, which costs 2, then twice, which costs 4.
  EXPECT_EQ(stage.run(step, {})->tokens[0].sampled.token, 1);
  EXPECT_EQ(stage.run(next_row(7, 1, 0), {})->tokens[0].sampled.token, 0);
}

TEST_F(StageTest, AnEndedSequenceIsForgottenAndMayStartAgain) {
  Stage stage = make();
  ASSERT_TRUE(stage.run(starting(7, {1, 2, 3}, {4}), {}).has_value());
  EXPECT_EQ(stage.sequence_count(), 1u);
  Step again = starting(7, {1}, {5});
  again.ended = {7, 99};
  ASSERT_TRUE(stage.run(again, {}).has_value());
  EXPECT_THAT(seen_.sequences[0].pages, ElementsAre(5));
  Step only_end{.id = 3, .ended = {7}};
  ASSERT_TRUE(stage.run(only_end, {}).has_value());
  EXPECT_EQ(stage.sequence_count(), 0u);
  expect_refused(stage, next_row(7, 1, 0), "sequence 7 is unknown");
}

TEST_F(StageTest, TheEngineHearsThePromptsLengthInEveryStep) {
  Stage stage = make();
  Step step = starting(7, {1, 2, 3}, {4});
  step.started[0].prompt_tokens = 12;  // a chunk of it
  ASSERT_TRUE(stage.run(step, {}).has_value());
  EXPECT_EQ(seen_.sequences[0].prompt_tokens, 12u);
  ASSERT_TRUE(stage.run(next_row(7, 3, 0), {}).has_value());
  EXPECT_EQ(seen_.sequences[0].prompt_tokens, 12u);
}

TEST_F(StageTest, LivingSequencesHaveStateSlotsOfTheirOwn) {
  Stage stage = make(true, 3);
  std::map<SequenceId, uint32_t> slots;
  for (SequenceId id : {10, 11, 12}) {
    ASSERT_TRUE(stage.run(starting(id, {1}, {static_cast<uint32_t>(id - 10)}), {}).has_value());
    slots[id] = seen_.sequences[0].state_slot;
    EXPECT_LT(slots[id], 3u);
  }
  EXPECT_EQ(std::set({slots[10], slots[11], slots[12]}).size(), 3u);
  for (SequenceId id : {10, 11, 12}) {
    ASSERT_TRUE(stage.run(next_row(id, 1, 0), {}).has_value());
    EXPECT_EQ(seen_.sequences[0].state_slot, slots[id]);
  }
  const auto refused = stage.run(starting(13, {1}, {3}), {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::limit_exceeded);
  EXPECT_THAT(refused.error().message, HasSubstr("no place for its state: 3 sequences are alive"));
  Step replaced = starting(13, {1}, {3});
  replaced.ended = {11};
  ASSERT_TRUE(stage.run(replaced, {}).has_value());
  EXPECT_EQ(seen_.sequences[0].state_slot, slots[11]);
}

TEST_F(StageTest, ASequenceThatStartsAgainNeedsNoSecondStateSlot) {
  Stage stage = make(true, 1);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(stage.run(starting(7, {1, 2}, {4}), {}).has_value());
    EXPECT_EQ(seen_.sequences[0].state_slot, 0u);
  }
}

// Else a sequence would read the state of whoever had the slot before, or count tokens twice.
TEST_F(StageTest, ARecurrentStateIsContinuedWhereItIsOrBegunAnew) {
  Stage stage = make(true, 2);
  Step behind = starting(7, {1, 2}, {4, 5});
  behind.sequences[0].context_tokens = 4;
  expect_refused(stage, behind, "state after 0 tokens, not after 4");
  ASSERT_TRUE(stage.run(starting(7, {1, 2, 3}, {4}), {}).has_value());
  expect_refused(stage, next_row(7, 2, 0), "state after 3 tokens, not after 2");
  ASSERT_TRUE(stage.run(next_row(7, 3, 0), {}).has_value());
  ASSERT_TRUE(stage.run(next_row(7, 0, 0), {}).has_value());
  ASSERT_TRUE(stage.run(next_row(7, 1, 0), {}).has_value());
}

TEST_F(StageTest, StepsThatDoNotFitAreRefused) {
  Stage stage = make();
  ASSERT_TRUE(stage.run(starting(7, {1, 2, 3}, {4}), {}).has_value());
  expect_refused(stage, next_row(8, 0, 0, 0, {1}), "sequence 8 is unknown");
  expect_refused(stage, next_row(7, 4, 0, 0, {4, 5}), "has 3 tokens cached");
  expect_refused(stage, next_row(7, 3, 0, 0, {kPages}), "page 8 of 8");
  expect_refused(stage, next_row(7, 3, 0, 2, {5}), "cannot come next");
  expect_refused(stage, starting(9, {1, 2, 3, 4, 0}, {1}), "1 pages of 4 tokens for 5");
  Step rows = starting(9, {1, 2}, {1});
  rows.sequences[0].row_count = 3;
  expect_refused(stage, rows, "3 rows of the 2 left");
  rows.sequences[0].row_count = 1;
  expect_refused(stage, rows, "1 rows, but there are 2 token ids");
  rows.sequences[0].row_count = 0;
  expect_refused(stage, rows, "0 rows");
  Step far = starting(9, {1}, {1});
  far.sequences[0].context_tokens = 0xFFFFFFFF;
  expect_refused(stage, far, "more than");
  Step copy = starting(9, {1}, {1});
  copy.page_copies = {{0, kPages}};
  expect_refused(stage, copy, "copy of page");
  Step large{.id = 5};
  large.token_ids.assign(limits::kMaxStepRows + 1, 0);
  expect_refused(stage, large, "more than 8192");
}

TEST_F(StageTest, NoPlaceIsWrittenTwiceInAStep) {
  Stage stage = make();
  Step two = starting(7, {1}, {4});
  two.started.push_back({.sequence = 8});
  two.sequences.push_back({.sequence = 8, .row_count = 1, .pages = {4}});
  two.token_ids.push_back(1);
  expect_refused(stage, two, "page 4 would be written twice");
  expect_refused(stage, starting(9, {1, 2, 3, 4, 0}, {2, 2}), "page 2 would be written twice");
}

// Else the second one's pages would move the table that the first one's rows still look at.
TEST_F(StageTest, ASequenceHasRowsOnceInAStep) {
  Stage stage = make();
  Step twice = starting(9, {1, 2, 3, 0}, {1});
  twice.sequences.push_back(
      {.sequence = 9, .context_tokens = 4, .row_count = 1, .first_page_index = 1, .pages = {2}});
  twice.token_ids.push_back(1);
  expect_refused(stage, twice, "sequence 9 has rows twice");
}

TEST_F(StageTest, MoreSequencesThanPagesCouldServeAreRefused) {
  Stage stage = make();
  Step step{.id = 1};
  for (SequenceId id = 0; id < kPages + limits::kMaxActiveSequences + 1; ++id)
    step.started.push_back({.sequence = id});
  expect_refused(stage, step, "sequences are known already");
}

}  // namespace
}  // namespace shoal::runtime
