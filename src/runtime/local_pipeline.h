// All stages of a model in this process, one after the other: what the workers of an instance do together,
// without their processes. For checking numerics (`shoal logits`) and tests; a step passes through the same
// Stage code, and from stage to stage in the same frames, over Links in memory.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/cpu/kernels.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "link/memory_link.h"
#include "model/decoder_spec.h"
#include "runtime/local_ranks.h"
#include "runtime/stage.h"
#include "runtime/stage_frame.h"

namespace shoal::runtime {

struct LocalPipelineOptions {
  uint32_t stages = 1;                // nearly equal parts
  uint32_t ranks = 1;                 // of each stage
  std::vector<uint32_t> shares = {};  // of the ranks, see engine::TensorShard
  engine::KvConfig kv;
  unsigned threads = 0;                 // of each rank; 0: all usable cores
  std::optional<engine::cpu::Isa> isa;  // nullopt: the fastest here
};

class LocalPipeline {
 public:
  // The checkpoint must outlive the pipeline.
  static Result<LocalPipeline> load(const formats::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                    const LocalPipelineOptions& options);

  Result<std::vector<StepToken>> run(const Step& step);
  // Logits [rows, vocabulary_size] of every row; valid until the next run.
  Result<std::span<const float>> run_rows(const Step& step);

  const std::vector<LocalRanks>& stages() const { return stages_; }

 private:
  // Hands on what stage `from` made of `step`, and gives what its neighbour receives.
  Result<StageFrame> pass_on(size_t from, const Step& step, std::span<const float> hidden);

  std::vector<LocalRanks> stages_;
  std::vector<link::MemoryLinks> links_;   // [stages - 1]
  std::optional<link::Frame> last_frame_;  // its hidden rows are being read
};

}  // namespace shoal::runtime
