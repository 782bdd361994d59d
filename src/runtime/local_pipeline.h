// All stages of a model in this process, one after the other: what the workers of an instance do together,
// without processes and links. For checking numerics (`shoal logits`) and tests; a step passes through the
// same Stage code.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/cpu/kernels.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"
#include "runtime/stage.h"

namespace shoal::runtime {

struct LocalPipelineOptions {
  uint32_t stages = 1;  // nearly equal parts
  engine::KvConfig kv;
  unsigned threads = 0;                 // of each stage; 0: all usable cores
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

  const std::vector<Stage>& stages() const { return stages_; }

 private:
  std::vector<Stage> stages_;
  std::vector<float> hidden_;  // between two stages
};

}  // namespace shoal::runtime
