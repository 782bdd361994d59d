#include "runtime/local_pipeline.h"

#include "base/assert.h"
#include "model/decoder_engine.h"

namespace shoal::runtime {

Result<LocalPipeline> LocalPipeline::load(const formats::Checkpoint& checkpoint,
                                          const model::DecoderSpec& spec,
                                          const LocalPipelineOptions& options) {
  SHOAL_TRY(const std::vector<engine::StageRange> ranges, model::even_stages(spec, options.stages));
  LocalPipeline pipeline;
  for (const engine::StageRange& range : ranges) {
    SHOAL_TRY(pipeline.stages_.emplace_back(),
              LocalRanks::load(checkpoint, spec,
                               {.stage = range,
                                .shard = {.count = options.ranks, .shares = options.shares},
                                .kv = options.kv,
                                .threads = options.threads,
                                .isa = options.isa,
                                .progress = {}}));
  }
  for (size_t index = 0; index + 1 < ranges.size(); ++index)
    pipeline.links_.push_back(link::make_memory_links());
  return pipeline;
}

Result<StageFrame> LocalPipeline::pass_on(size_t from, const Step& step, std::span<const float> hidden) {
  const link::MemoryLinks& links = links_[from];
  ByteWriter writer;
  step.encode(writer);
  SHOAL_TRY(link::Frame sent, make_stage_frame(*links.first, step.id, writer.bytes(), {}, hidden));
  SHOAL_TRY_VOID(links.first->send(std::move(sent)));
  SHOAL_TRY(last_frame_, links.second->receive(kStepChannel));
  SHOAL_ASSERT(last_frame_.has_value());  // without a deadline it is a frame or an Error
  return read_stage_frame(*last_frame_);
}

Result<std::vector<StepToken>> LocalPipeline::run(const Step& step) {
  SHOAL_TRY(StageOutput output, stages_.front().run(step, {}));
  for (size_t index = 1; index < stages_.size(); ++index) {
    SHOAL_TRY(const StageFrame frame, pass_on(index - 1, step, output.hidden));
    SHOAL_TRY(output, stages_[index].run(frame.step, frame.hidden));
  }
  return std::move(output.tokens);
}

Result<std::span<const float>> LocalPipeline::run_rows(const Step& step) {
  SHOAL_TRY(std::span<const float> rows, stages_.front().run_rows(step, {}));
  for (size_t index = 1; index < stages_.size(); ++index) {
    SHOAL_TRY(const StageFrame frame, pass_on(index - 1, step, rows));
    SHOAL_TRY(rows, stages_[index].run_rows(frame.step, frame.hidden));
  }
  return rows;
}

}  // namespace shoal::runtime
