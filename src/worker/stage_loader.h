// Opens a model, read-only, and loads one stage of it on an engine of this machine.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "engine/rank_group.h"
#include "formats/checkpoint.h"
#include "runtime/stage.h"
#include "worker/core_ledger.h"
#include "worker/messages.h"

namespace shoal::worker {

// Outlives its stage what the stage reads: embeddings from the checkpoint's map, its threads from the ledger.
struct LoadedStage {
  formats::Checkpoint checkpoint;
  std::unique_ptr<CoreLedger> cores;
  runtime::Stage stage;

  // Stage::run, with the threads that other workers of this machine leave us.
  Result<runtime::StageOutput> run(const runtime::Step& step, std::span<const float> hidden) {
    auto output = stage.run(step, hidden);
    cores->end_step();
    return output;
  }
};

// `group`: the ranks of the stage; outlives the stage.
Result<std::unique_ptr<LoadedStage>> load_stage(const LoadRequest& load, engine::RankGroup& group,
                                                std::function<void(float)> progress);

}  // namespace shoal::worker
