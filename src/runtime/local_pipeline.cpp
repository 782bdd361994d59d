#include "runtime/local_pipeline.h"

#include "model/decoder_engine.h"

namespace shoal::runtime {

Result<LocalPipeline> LocalPipeline::load(const formats::Checkpoint& checkpoint,
                                          const model::DecoderSpec& spec,
                                          const LocalPipelineOptions& options) {
  SHOAL_TRY(const std::vector<engine::StageRange> ranges, model::even_stages(spec, options.stages));
  LocalPipeline pipeline;
  for (const engine::StageRange& range : ranges) {
    SHOAL_TRY(std::unique_ptr<engine::Engine> engine, model::load_cpu_engine(checkpoint, spec,
                                                                             {.stage = range,
                                                                              .shard = {},
                                                                              .kv = options.kv,
                                                                              .threads = options.threads,
                                                                              .isa = options.isa,
                                                                              .progress = {}}));
    pipeline.stages_.emplace_back(std::move(engine), range.heads);
  }
  return pipeline;
}

Result<std::vector<StepToken>> LocalPipeline::run(const Step& step) {
  hidden_.clear();
  std::vector<StepToken> tokens;
  for (Stage& stage : stages_) {
    SHOAL_TRY(StageOutput output, stage.run(step, hidden_));
    hidden_.assign(output.hidden.begin(), output.hidden.end());
    tokens = std::move(output.tokens);
  }
  return tokens;
}

Result<std::span<const float>> LocalPipeline::run_rows(const Step& step) {
  hidden_.clear();
  for (size_t index = 0; index + 1 < stages_.size(); ++index) {
    SHOAL_TRY(const std::span<const float> hidden, stages_[index].run_rows(step, hidden_));
    hidden_.assign(hidden.begin(), hidden.end());
  }
  return stages_.back().run_rows(step, hidden_);
}

}  // namespace shoal::runtime
