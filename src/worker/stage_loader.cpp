#include "worker/stage_loader.h"

#include "model/decoder_engine.h"
#include "model/decoder_spec.h"

namespace shoal::worker {

Result<std::unique_ptr<LoadedStage>> load_stage(const LoadRequest& load,
                                                std::function<void(float)> progress) {
  SHOAL_TRY(auto checkpoint, formats::Checkpoint::open(load.model_path));
  SHOAL_TRY(auto spec, model::read_decoder_spec(checkpoint));
  model::CpuEngineOptions options{.stage = load.stage,
                                  .shard = load.shard,
                                  .kv = load.kv,
                                  .threads = load.threads,
                                  .isa = {},
                                  .progress = std::move(progress)};
  if (!load.isa.empty()) {
    SHOAL_TRY(options.isa, engine::cpu::parse_isa(load.isa));
  }
  SHOAL_TRY(auto engine, model::load_cpu_engine(checkpoint, spec, options));
  return std::make_unique<LoadedStage>(
      LoadedStage{std::move(checkpoint), runtime::Stage(std::move(engine), load.stage.heads)});
}

}  // namespace shoal::worker
