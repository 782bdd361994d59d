#include "runtime/stage.h"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>
#include <utility>

#include "base/assert.h"
#include "base/clock.h"
#include "base/limits.h"

namespace shoal::runtime {

namespace {

template <class... Arguments>
std::unexpected<Error> bad_step(const Step& step, fmt::format_string<Arguments...> format,
                                Arguments&&... arguments) {
  return fail(
      ErrorCode::invalid_argument,
      fmt::format("step {}: {}", step.id, fmt::format(format, std::forward<Arguments>(arguments)...)));
}

}  // namespace

Stage::Stage(std::unique_ptr<engine::Engine> engine, bool samples)
    : engine_(std::move(engine)),
      samples_(samples),
      free_state_slots_(engine_->kv().state_slots),
      page_writers_(engine_->kv().page_count, 0) {
  std::iota(free_state_slots_.rbegin(), free_state_slots_.rend(), 0u);
}
Stage::~Stage() = default;
Stage::Stage(Stage&&) noexcept = default;
Stage& Stage::operator=(Stage&&) noexcept = default;

Result<StageOutput> Stage::run(const Step& step, std::span<const float> hidden_in) {
  const SystemClock clock;
  const TimePoint begin = clock.now();
  SHOAL_TRY_VOID(apply(step));
  SHOAL_TRY_VOID(prepare_rows(step, OutputRows::sampled));
  SHOAL_TRY(const std::span<const float> values,
            engine_->step({step.token_ids, positions_, rows_, output_rows_}, hidden_in));
  StageOutput output;
  if (samples_) {
    output.tokens = sample_rows(step, values);
  } else {
    output.hidden = values;
  }
  output.milliseconds = static_cast<float>(to_milliseconds(clock.now() - begin));
  return output;
}

Result<std::span<const float>> Stage::run_rows(const Step& step, std::span<const float> hidden_in) {
  SHOAL_TRY_VOID(apply(step));
  SHOAL_TRY_VOID(prepare_rows(step, OutputRows::all));
  return engine_->step({step.token_ids, positions_, rows_, output_rows_}, hidden_in);
}

Result<> Stage::apply(const Step& step) {
  if (step.token_ids.size() > limits::kMaxStepRows)
    return fail(ErrorCode::limit_exceeded, fmt::format("step {}: {} rows, more than {}", step.id,
                                                       step.token_ids.size(), limits::kMaxStepRows));
  steps_ += 1;
  for (SequenceId ended : step.ended) end(ended);
  for (const SequenceStart& started : step.started) SHOAL_TRY_VOID(start(started));
  return copy_pages(step);
}

// Steps run in order, so what the sequence had may be given away at once.
void Stage::end(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  if (engine_->kv().state_slots > 0) free_state_slots_.push_back(found->second.state_slot);
  sequences_.erase(found);
}

// 0 where no layer has a state to keep.
Result<uint32_t> Stage::take_state_slot(SequenceId id) {
  const uint32_t slots = engine_->kv().state_slots;
  if (slots == 0) return 0;
  if (free_state_slots_.empty())
    return fail(ErrorCode::limit_exceeded,
                fmt::format("sequence {} has no place for its state: {} sequences are alive", id, slots));
  const uint32_t slot = free_state_slots_.back();
  free_state_slots_.pop_back();
  return slot;
}

Result<> Stage::start(const SequenceStart& start) {
  end(start.sequence);  // one that starts again starts anew
  // Each lives at least one KV page long, so pages bound their number.
  if (sequences_.size() >= engine_->kv().page_count + limits::kMaxActiveSequences)
    return fail(ErrorCode::limit_exceeded, fmt::format("{} sequences are known already", sequences_.size()));
  Sequence sequence;
  SHOAL_TRY(sequence.state_slot, take_state_slot(start.sequence));
  sequence.prompt_tokens = start.prompt_tokens;
  sequence.sampling = start.sampling;
  if (samples_) {
    sequence.history.add_prompt(start.prompt);
    for (int32_t token : start.answer) sequence.history.add_answer(token);
  }
  sequences_.emplace(start.sequence, std::move(sequence));
  return {};
}

Result<> Stage::copy_pages(const Step& step) {
  const uint32_t page_count = engine_->kv().page_count;
  for (const PageCopy& copy : step.page_copies) {
    if (copy.from >= page_count || copy.to >= page_count)
      return bad_step(step, "copy of page {} to {} of {}", copy.from, copy.to, page_count);
    if (copy.from != copy.to) engine_->copy_page(copy.from, copy.to);
  }
  return {};
}

Result<> Stage::prepare_rows(const Step& step, OutputRows output) {
  positions_.clear();
  rows_.clear();
  output_rows_.clear();
  for (const StepSequence& rows : step.sequences) {
    const auto first_row = static_cast<uint32_t>(positions_.size());
    if (rows.row_count == 0 || rows.row_count > step.token_ids.size() - first_row)
      return bad_step(step, "sequence {} has {} rows of the {} left", rows.sequence, rows.row_count,
                      step.token_ids.size() - first_row);
    const auto found = sequences_.find(rows.sequence);
    if (found == sequences_.end()) return bad_step(step, "sequence {} is unknown", rows.sequence);
    Sequence& sequence = found->second;
    // Its table would move under the rows before, and two threads would write its state.
    if (std::exchange(sequence.last_step, steps_) == steps_)
      return bad_step(step, "sequence {} has rows twice", rows.sequence);
    if (auto placed = place(rows, sequence); !placed) return bad_step(step, "{}", placed.error().message);
    for (uint32_t index = 0; index < rows.row_count; ++index)
      positions_.push_back(static_cast<int32_t>(rows.context_tokens + index));
    rows_.push_back({.first_row = first_row,
                     .row_count = rows.row_count,
                     .context_tokens = rows.context_tokens,
                     .pages = sequence.pages,
                     .prompt_tokens = sequence.prompt_tokens,
                     .state_slot = sequence.state_slot});
    if (output == OutputRows::sampled && rows.samples) output_rows_.push_back(first_row + rows.row_count - 1);
  }
  if (positions_.size() != step.token_ids.size())
    return bad_step(step, "its sequences have {} rows, but there are {} token ids", positions_.size(),
                    step.token_ids.size());
  if (output == OutputRows::all)
    for (uint32_t row = 0; row < positions_.size(); ++row) output_rows_.push_back(row);
  return {};
}

// Rows follow what is cached, or overwrite some of it. A recurrent state has all tokens in it or none: rows
// that do not follow it begin at the sequence's first token.
Result<> Stage::check_context(const StepSequence& rows, const Sequence& sequence) const {
  const bool known = sequence.has_rows;
  if (known && rows.context_tokens > sequence.cached_tokens)
    return fail(ErrorCode::invalid_argument,
                fmt::format("sequence {} has {} tokens cached, not {}", rows.sequence, sequence.cached_tokens,
                            rows.context_tokens));
  if (engine_->kv().state_slots == 0 || rows.context_tokens == 0) return {};
  if (!known || rows.context_tokens != sequence.cached_tokens)
    return fail(ErrorCode::invalid_argument,
                fmt::format("sequence {} has a state after {} tokens, not after {}", rows.sequence,
                            known ? sequence.cached_tokens : 0, rows.context_tokens));
  return {};
}

// Brings the sequence's page table up to date and checks that the rows follow what is cached.
Result<> Stage::place(const StepSequence& rows, Sequence& sequence) {
  const uint64_t end_tokens = uint64_t{rows.context_tokens} + rows.row_count;
  if (end_tokens > limits::kMaxContextTokens)
    return fail(ErrorCode::limit_exceeded, fmt::format("sequence {} would have {} tokens, more than {}",
                                                       rows.sequence, end_tokens, limits::kMaxContextTokens));
  SHOAL_TRY_VOID(check_context(rows, sequence));
  if (rows.first_page_index > sequence.pages.size())
    return fail(ErrorCode::invalid_argument,
                fmt::format("sequence {} has {} pages, {} cannot come next", rows.sequence,
                            sequence.pages.size(), rows.first_page_index));
  const engine::KvConfig& kv = engine_->kv();
  for (uint32_t page : rows.pages)
    if (page >= kv.page_count)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("sequence {} has page {} of {}", rows.sequence, page, kv.page_count));
  const uint64_t page_count =
      rows.pages.empty() ? sequence.pages.size() : uint64_t{rows.first_page_index} + rows.pages.size();
  if (page_count * kv.page_tokens < end_tokens || page_count > kv.page_count)
    return fail(ErrorCode::invalid_argument,
                fmt::format("sequence {} has {} pages of {} tokens for {} tokens", rows.sequence, page_count,
                            kv.page_tokens, end_tokens));
  if (!rows.pages.empty()) {
    sequence.pages.resize(rows.first_page_index);
    sequence.pages.insert(sequence.pages.end(), rows.pages.begin(), rows.pages.end());
  }
  sequence.cached_tokens = static_cast<uint32_t>(end_tokens);
  sequence.has_rows = true;
  return claim_pages(rows, sequence);
}

// Two sequences, or two pages of one, must not write the same place in one step.
Result<> Stage::claim_pages(const StepSequence& rows, const Sequence& sequence) {
  const uint32_t page_tokens = engine_->kv().page_tokens;
  const uint32_t last = (rows.context_tokens + rows.row_count - 1) / page_tokens;
  for (uint32_t index = rows.context_tokens / page_tokens; index <= last; ++index) {
    uint64_t& writer = page_writers_[sequence.pages[index]];
    if (writer == steps_)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("page {} would be written twice, also by sequence {}", sequence.pages[index],
                              rows.sequence));
    writer = steps_;
  }
  return {};
}

std::vector<StepToken> Stage::sample_rows(const Step& step, std::span<const float> logits) {
  const size_t vocabulary = engine_->vocabulary_size();
  SHOAL_ASSERT(logits.size() == output_rows_.size() * vocabulary);
  std::vector<StepToken> tokens;
  tokens.reserve(output_rows_.size());
  for (const StepSequence& rows : step.sequences) {
    if (!rows.samples) continue;
    Sequence& sequence = sequences_.at(rows.sequence);
    const auto row = logits.subspan(tokens.size() * vocabulary, vocabulary);
    const uint64_t position = uint64_t{rows.context_tokens} + rows.row_count;
    tokens.push_back({rows.sequence, sample(row, sequence.sampling, sequence.history, position)});
    sequence.history.add_answer(tokens.back().sampled.token);
  }
  return tokens;
}

}  // namespace shoal::runtime
