#include "worker/stage_loader.h"

#include <algorithm>

#include "base/cores.h"
#include "base/system.h"
#include "model/decoder_engine.h"
#include "model/decoder_spec.h"

namespace shoal::worker {

Result<std::unique_ptr<LoadedStage>> load_stage(const LoadRequest& load, engine::RankGroup& group,
                                                std::function<void(float)> progress) {
  SHOAL_TRY(auto checkpoint, formats::Checkpoint::open(load.model_path));
  SHOAL_TRY(auto spec, model::read_decoder_spec(checkpoint));
  std::vector<unsigned> cores = usable_cores();
  const unsigned core_count = std::min(static_cast<unsigned>(cores.size()), usable_core_count());
  const unsigned threads = load.threads == 0 ? core_count : load.threads;
  // With fewer threads than cores, or less time than cores, the system knows better where to put them.
  const bool have_all = threads == cores.size();
  cores.resize(core_count);
  auto ledger = std::make_unique<CoreLedger>("shoal-cores", threads, cores);
  model::CpuEngineOptions options{.stage = load.stage,
                                  .shard = load.shard,
                                  .kv = load.kv,
                                  .threads = threads,
                                  .isa = {},
                                  .progress = std::move(progress),
                                  .cores = have_all ? cores : std::vector<unsigned>(),
                                  .thread_share = [&ledger = *ledger] { return ledger.begin_step(); },
                                  .ranks = load.shard.count > 1 ? &group : nullptr};
  if (!load.isa.empty()) {
    SHOAL_TRY(options.isa, engine::cpu::parse_isa(load.isa));
  }
  SHOAL_TRY(auto engine, model::load_cpu_engine(checkpoint, spec, options));
  return std::make_unique<LoadedStage>(
      LoadedStage{std::move(checkpoint), std::move(ledger),
                  runtime::Stage(std::move(engine), load.stage.heads && load.shard.rank == 0)});
}

}  // namespace shoal::worker
