// One stage of an instance at work: an engine with a layer range, the page tables of the sequences it knows,
// and, on the last stage, what is needed to sample them. Steps arrive in order and are checked as if the
// sender were hostile: a step that does not fit is an Error and leaves the sequences' tables as they were or
// as the step's valid beginning made them; after an Error the owner starts a new epoch. One thread drives a
// Stage.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "runtime/sampling.h"
#include "runtime/step.h"

namespace shoal::runtime {

struct StageOutput {
  std::span<const float>
      hidden;  // [rows, hidden_size] for the next stage; empty on the last one; valid until the next run
  std::vector<StepToken> tokens;  // on the last stage: one per StepSequence with `samples`, in order
  float milliseconds = 0;         // of this stage, sampling included
};

class Stage {
 public:
  // `samples`: the stage's engine ends in logits, and of several ranks this one leads. The others run the
  // same steps and give what nobody needs.
  Stage(std::unique_ptr<engine::Engine> engine, bool samples);
  ~Stage();
  Stage(Stage&&) noexcept;
  Stage& operator=(Stage&&) noexcept;

  // Applies ended, started and page copies, then runs the rows. `hidden_in` is [rows, hidden_size] from the
  // stage before, empty on the first; the same on every rank. Errors: invalid_argument, limit_exceeded (the
  // step does not fit), or the engine's.
  Result<StageOutput> run(const Step& step, std::span<const float> hidden_in);

  // The same without sampling: logits [rows, vocabulary_size] of every row on the last stage, hidden rows on
  // others.
  Result<std::span<const float>> run_rows(const Step& step, std::span<const float> hidden_in);

  const engine::Engine& engine() const { return *engine_; }
  size_t sequence_count() const { return sequences_.size(); }

 private:
  struct Sequence {
    std::vector<uint32_t> pages;
    uint32_t prompt_tokens = 0;
    uint32_t state_slot = 0;     // its own, where the engine has slots
    uint32_t cached_tokens = 0;  // known to be in the cache; meaningful once `has_rows`
    bool has_rows = false;
    uint64_t last_step = 0;  // with rows of it, by steps_
    SamplingParameters sampling;
    TokenHistory history;  // kept on the last stage, when a penalty is on
  };
  enum class OutputRows { sampled, all };

  Result<> apply(const Step& step);
  void end(SequenceId id);
  Result<> start(const SequenceStart& start);
  Result<uint32_t> take_state_slot(SequenceId id);
  Result<> copy_pages(const Step& step);
  Result<> prepare_rows(const Step& step, OutputRows output);
  Result<> check_context(const StepSequence& rows, const Sequence& sequence) const;
  Result<> place(const StepSequence& rows, Sequence& sequence);
  Result<> claim_pages(const StepSequence& rows, const Sequence& sequence);
  std::vector<StepToken> sample_rows(const Step& step, std::span<const float> logits);

  std::unique_ptr<engine::Engine> engine_;
  bool samples_;
  std::unordered_map<SequenceId, Sequence> sequences_;
  std::vector<uint32_t> free_state_slots_;  // a stack
  uint64_t steps_ = 0;
  std::vector<uint64_t> page_writers_;  // [page_count]: the last step that wrote the page
  // The StepView under construction; kept to reuse their memory.
  std::vector<int32_t> positions_;
  std::vector<engine::SequenceRows> rows_;
  std::vector<uint32_t> output_rows_;
};

}  // namespace shoal::runtime
