// A model on one stage in this process, driven with steps as an owner would: sequences that start, read a
// prompt and decode greedily.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "benchmarks.h"
#include "figures.h"
#include "formats/checkpoint.h"
#include "model/decoder_engine.h"
#include "model/decoder_spec.h"
#include "runtime/stage.h"

namespace shoal::bench {

class ModelRun {
 public:
  using LoadEngine = std::function<std::unique_ptr<engine::Engine>(
      const formats::Checkpoint&, const model::DecoderSpec&, const model::CpuEngineOptions&)>;

  // Loads the whole model with room for `kv_tokens` tokens; `load` may put another engine in place of the
  // CPU's.
  ModelRun(const ModelTask& task, uint32_t kv_tokens, const LoadEngine& load = {});

  // Forgets all sequences; `count` new ones with prompts of `prompt_tokens` random tokens each are read, in
  // chunks.
  void start(uint32_t count, uint32_t prompt_tokens);
  // Like start with one sequence, but only the first chunk is computed: the pages behind it are copies of it.
  void start_long(uint32_t context_tokens);
  // One token more for each sequence.
  Times decode();
  // One new sequence's prompt as one step, to its first token.
  Times read_prompt(uint32_t tokens);

  const formats::Checkpoint& checkpoint() const { return *checkpoint_; }
  const model::DecoderSpec& spec() const { return *spec_; }
  // Of the file's weights, that a token alone reads.
  double active_bytes() const;
  double kv_bytes_per_token() const;

 private:
  struct Sequence {
    uint64_t id;
    uint32_t context_tokens;
    uint32_t first_page;
    uint32_t page_count;
    int32_t last_token;
  };

  runtime::Step new_step();
  void start_sequence(runtime::Step& step, uint32_t prompt_tokens, uint32_t capacity_tokens);
  void add_rows(runtime::Step& step, Sequence& sequence, std::span<const int32_t> tokens, bool samples);
  void run(const runtime::Step& step);
  std::vector<int32_t> random_tokens(uint32_t count);

  std::unique_ptr<formats::Checkpoint> checkpoint_;
  std::unique_ptr<model::DecoderSpec> spec_;
  std::unique_ptr<runtime::Stage> stage_;
  std::vector<Sequence> sequences_;
  std::vector<uint64_t> ended_;
  uint64_t step_id_ = 0, sequence_id_ = 0, random_ = 1;
  uint32_t next_page_ = 0;
};

}  // namespace shoal::bench
