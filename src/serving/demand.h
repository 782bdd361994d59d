// What serving a model asks of machines, for the planner.
#pragma once

#include <vector>

#include "engine/engine.h"
#include "planner/planner.h"
#include "serving/model_card.h"
#include "serving/service.h"

namespace shoal::serving {

// Of keys and values as an engine holds them.
double kv_bytes_per_value(engine::KvType type);

// Rows of KV are held in `kv_type`; a stage's overhead covers its process, a step's activations and buffers.
planner::ModelDemand model_demand(const ModelCard& card, engine::KvType kv_type);

// What to try to fit, in order: room for several long conversations first, for one short one last.
// A context asked for is kept; only the concurrency then falls, unless that was asked for, too.
std::vector<planner::PlanOptions> plan_attempts(const ModelCard& card, const PlaceOptions& wanted);

}  // namespace shoal::serving
