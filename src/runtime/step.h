// A step as it travels from the owner's scheduler through every stage, and what comes back. Plain data with a
// binary form; decode() treats the bytes as hostile. Pages are numbered by the owner and mean the same on
// every stage.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "runtime/sampling.h"

namespace shoal::runtime {

using SequenceId = uint64_t;

// A sequence that appears for the first time (or again after preemption): what holds for all of its life, and
// what the last stage needs to sample it.
struct SequenceStart {
  SequenceId sequence = 0;
  // Of the prompt alone, whatever is cached, was said before, or has to be computed again: a model that
  // chooses its rotary frequencies by it must choose the same ones after a preemption and a resume.
  uint32_t prompt_tokens = 0;
  SamplingParameters sampling = {};
  std::vector<int32_t> prompt = {};  // for penalties; empty when no penalty is on
  std::vector<int32_t> answer = {};  // tokens already committed (resume, preemption), likewise
};

// Rows of one sequence in this step. The rows' token ids follow each other in Step::token_ids.
struct StepSequence {
  SequenceId sequence = 0;
  uint32_t context_tokens = 0;  // cached before this step
  uint32_t row_count = 0;
  bool samples = false;           // choose a token after the last row
  uint32_t first_page_index = 0;  // `pages` replace the sequence's page table from this index on
  std::vector<uint32_t> pages = {};
};

struct PageCopy {
  uint32_t from = 0;
  uint32_t to = 0;
};

struct Step {
  uint64_t id = 0;                     // rises by one per step of an epoch
  uint32_t epoch = 0;                  // of the instance's world; a worker drops steps of another epoch
  std::vector<SequenceId> ended = {};  // forget these first
  std::vector<SequenceStart> started = {};
  std::vector<PageCopy> page_copies = {};  // before the rows run
  std::vector<StepSequence> sequences = {};
  std::vector<int32_t> token_ids = {};  // [rows], in the order of `sequences`

  void encode(ByteWriter& writer) const;
  static Result<Step> decode(ByteReader& reader);
};

struct StepToken {
  SequenceId sequence = 0;
  SampledToken sampled = {};
};

struct StepResult {
  uint64_t id = 0;
  uint32_t epoch = 0;
  std::vector<StepToken> tokens = {};          // one per StepSequence with `samples`, in order
  std::vector<float> stage_milliseconds = {};  // compute time of each stage, in stage order

  void encode(ByteWriter& writer) const;
  static Result<StepResult> decode(ByteReader& reader);
};

}  // namespace shoal::runtime
