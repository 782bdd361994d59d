// Opens a model, read-only, and loads one stage of it on an engine of this machine.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "runtime/stage.h"
#include "worker/messages.h"

namespace shoal::worker {

struct LoadedStage {
  formats::Checkpoint checkpoint;  // outlives the stage, which reads embeddings from its map
  runtime::Stage stage;
};

Result<std::unique_ptr<LoadedStage>> load_stage(const LoadRequest& load, std::function<void(float)> progress);

}  // namespace shoal::worker
