// A stage of a model loaded on an engine of this machine, behind the virtual engine::Engine. Every step is
// checked before it reaches the backend: token ids, positions, rows, pages and output rows that do not fit
// are an Error (invalid_argument or limit_exceeded), never undefined behaviour.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/cpu/kernels.h"
#include "engine/engine.h"
#include "engine/rank_group.h"
#include "engine/thread_share.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

// The whole model as one stage.
engine::StageRange whole_model(const DecoderSpec& spec);
// The stages of a pipeline of `count` nearly equal parts; with one more than there are layers the first only
// embeds. Errors: invalid_argument (0, or more than that).
Result<std::vector<engine::StageRange>> even_stages(const DecoderSpec& spec, uint32_t count);

struct CpuEngineOptions {
  engine::StageRange stage;
  engine::TensorShard shard;  // of several ranks: with `ranks`
  engine::KvConfig kv;
  unsigned threads = 0;                          // 0: all usable cores
  std::optional<engine::cpu::Isa> isa;           // nullopt: the fastest here
  std::function<void(float fraction)> progress;  // of loading, in [0, 1]; may be empty
  std::vector<unsigned> cores = {};              // see CpuBackendOptions, as the next
  std::function<engine::ThreadShare()> thread_share = {};
  engine::RankGroup* ranks = nullptr;  // must outlive the engine
};

// Reads and repacks the tensors of the stage, and no others. The checkpoint must outlive the engine when the
// stage embeds (rows of the embedding are read from its map). Errors: invalid_argument (a stage that is not
// of this model, a shard that makes no sense or without its group), unsupported (KV type or ISA),
// out_of_memory, malformed.
Result<std::unique_ptr<engine::Engine>> load_cpu_engine(const formats::Checkpoint& checkpoint,
                                                        const DecoderSpec& spec,
                                                        const CpuEngineOptions& options);

// What step() accepts; used by load_cpu_engine, shared by engines of other kinds.
struct StepBounds {
  engine::StageRange stage;
  uint32_t hidden_size = 0;
  uint32_t vocabulary_size = 0;
  uint32_t page_tokens = 0;
  uint32_t page_count = 0;
};
Result<> check_step(const engine::StepView& step, std::span<const float> hidden_in, const StepBounds& bounds);

}  // namespace shoal::model
