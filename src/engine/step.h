// One step: a ragged batch of token rows. Rows of one sequence are consecutive; a decode row is a sequence with one
// row, a prefill chunk a sequence with many, and both live in the same step. All sizes are in tokens or rows.
#pragma once

#include <cstdint>
#include <span>

namespace shoal::engine {

// Where the rows of one sequence lie in the step and where its keys and values lie in the cache.
// Token t of the sequence is in page pages[t / page_tokens] at row t % page_tokens.
struct SequenceRows {
  uint32_t first_row;                // in the step
  uint32_t row_count;
  uint32_t context_tokens;           // already in the cache before this step; the first row's position
  std::span<const uint32_t> pages;   // covers at least context_tokens + row_count tokens
  uint32_t prompt_tokens = 0;        // the sequence's prompt, whole; chooses between frequencies of longrope
  uint32_t state_slot = 0;           // where its recurrent state is, in models that have one; < KvConfig::state_slots
};

struct StepView {
  std::span<const int32_t> token_ids;           // [rows]
  std::span<const int32_t> positions;           // [rows], context_tokens + index within its sequence
  std::span<const SequenceRows> sequences;      // rows are covered exactly once, in order
  std::span<const uint32_t> output_rows;        // rows whose logits are wanted (used by the last stage only)
};

}  // namespace shoal::engine
