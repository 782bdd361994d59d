// For tests: workers whose model is a pure function of the tokens that it finds through the page table. Each
// page slot remembers which token, after which history, was written there, so a page given away too early, a
// wrong context length or a missing page entry shows as a failed check rather than as a slightly wrong
// number. It can be a recurrent model, whose states live in so many slots, and one that computes long prompts
// otherwise.
#pragma once

#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <span>
#include <vector>

#include "runtime/step.h"

namespace shoal::scheduler {

// The state of a history; stands in for keys and values.
inline uint64_t extend(uint64_t state, int32_t token) {
  uint64_t x = state * 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(token) + 1;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9ull;
  return x ^ (x >> 32);
}

inline int32_t choose(uint64_t state, uint64_t seed, int32_t vocabulary) {
  return static_cast<int32_t>(extend(state ^ seed, 7) % static_cast<uint64_t>(vocabulary));
}

// Where a history begins; long prompts are computed otherwise from their first token on.
inline uint64_t first_state(size_t prompt_tokens, uint32_t long_after_tokens) {
  return long_after_tokens > 0 && prompt_tokens > long_after_tokens ? 0x10C6 : 0;
}

struct FakeModel {
  uint32_t state_slots = 0;  // of a recurrent model
  uint32_t long_after_tokens = 0;
};

class FakeWorld {
 public:
  // The token that follows a history; for tests that want to choose it.
  using Choose = std::function<int32_t(std::span<const int32_t> history, uint64_t seed)>;

  FakeWorld(uint32_t page_tokens, uint32_t page_count, int32_t vocabulary, Choose choice = {},
            const FakeModel& model = {})
      : page_tokens_(page_tokens),
        vocabulary_(vocabulary),
        choice_(std::move(choice)),
        model_(model),
        slots_(size_t{page_tokens} * page_count) {}

  runtime::StepResult run(const runtime::Step& step) {
    EXPECT_GT(step.id, last_id_) << "step ids rise";
    last_id_ = step.id;
    for (runtime::SequenceId id : step.ended) EXPECT_EQ(sequences_.erase(id), 1u) << "ended sequence " << id;
    for (const runtime::SequenceStart& start : step.started)
      EXPECT_TRUE(sequences_
                      .emplace(start.sequence, Known{.seed = start.sampling.seed,
                                                     .first_state = first_state(start.prompt_tokens,
                                                                                model_.long_after_tokens)})
                      .second)
          << "sequence " << start.sequence << " started twice";
    EXPECT_TRUE(model_.state_slots == 0 || sequences_.size() <= model_.state_slots) << sequences_.size();
    runtime::StepResult result{
        .id = step.id, .epoch = step.epoch, .tokens = {}, .stage_milliseconds = {1.0f}};
    std::map<runtime::SequenceId, int> seen;
    size_t row = 0;
    for (const runtime::StepSequence& rows : step.sequences) {
      EXPECT_EQ(++seen[rows.sequence], 1) << "a sequence twice in one step";
      EXPECT_GT(rows.row_count, 0u);
      if (row + rows.row_count > step.token_ids.size() || !sequences_.contains(rows.sequence)) {
        ADD_FAILURE() << "rows of sequence " << rows.sequence << " do not match the step";
        return result;
      }
      run_rows(step, rows, row, result);
      row += rows.row_count;
    }
    EXPECT_EQ(row, step.token_ids.size());
    return result;
  }

  size_t known_sequences() const { return sequences_.size(); }

 private:
  struct Known {
    uint64_t seed = 0;
    uint64_t first_state = 0;
    std::vector<uint32_t> pages = {};
    uint32_t state_tokens = 0;  // in its recurrent state
  };
  struct Slot {
    int32_t token = -1;
    uint64_t state = 0;
  };

  void run_rows(const runtime::Step& step, const runtime::StepSequence& rows, size_t first_row,
                runtime::StepResult& result) {
    Known& known = sequences_.at(rows.sequence);
    ASSERT_LE(rows.first_page_index, known.pages.size());
    known.pages.resize(rows.first_page_index);
    known.pages.insert(known.pages.end(), rows.pages.begin(), rows.pages.end());
    ASSERT_GE(known.pages.size() * page_tokens_, size_t{rows.context_tokens} + rows.row_count);
    if (model_.state_slots > 0) {
      ASSERT_TRUE(rows.context_tokens == 0 || rows.context_tokens == known.state_tokens)
          << "rows after " << rows.context_tokens << " tokens, the state has " << known.state_tokens;
    }
    known.state_tokens = rows.context_tokens + rows.row_count;
    uint64_t state = known.first_state;
    std::vector<int32_t> history;
    for (uint32_t position = 0; position < rows.context_tokens; ++position) {
      const Slot& slot = slot_of(known, position);
      state = extend(state, slot.token);
      history.push_back(slot.token);
      ASSERT_EQ(slot.state, state) << "sequence " << rows.sequence << " position " << position;
    }
    for (uint32_t index = 0; index < rows.row_count; ++index) {
      const int32_t token = step.token_ids[first_row + index];
      state = extend(state, token);
      history.push_back(token);
      slot_of(known, rows.context_tokens + index) = {token, state};
    }
    if (!rows.samples) return;
    const int32_t token = choice_ ? choice_(history, known.seed) : choose(state, known.seed, vocabulary_);
    result.tokens.push_back(
        {.sequence = rows.sequence, .sampled = {.token = token, .logprob = 0, .alternatives = {}}});
  }

  Slot& slot_of(const Known& known, uint32_t position) {
    return slots_.at(size_t{known.pages[position / page_tokens_]} * page_tokens_ + position % page_tokens_);
  }

  uint32_t page_tokens_;
  int32_t vocabulary_;
  Choose choice_;
  FakeModel model_;
  std::vector<Slot> slots_;
  std::map<runtime::SequenceId, Known> sequences_;
  uint64_t last_id_ = 0;
};

}  // namespace shoal::scheduler
