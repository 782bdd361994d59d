// What a given placement should give, by the same costs as plan(): for instances that run already.
#pragma once

#include <vector>

#include "planner/planner.h"

namespace shoal::planner {

// `stages` need nodes, layers and shares; the answer's stages have all figures, and no reasons. Errors:
// not_found for a node that `devices` lacks, invalid_argument for stages that are none of this model. Memory
// is not looked at.
Result<Placement> predict(const std::vector<Device>& devices, const std::vector<LinkFigures>& links,
                          const ModelDemand& model, const PlanOptions& options,
                          const std::vector<StagePlan>& stages);

// Seconds of each stage for a step of `rows` rows of which `output_rows` need logits: what a step that was
// observed is held against.
Result<std::vector<double>> predict_step(const std::vector<Device>& devices,
                                         const std::vector<LinkFigures>& links, const ModelDemand& model,
                                         const std::vector<StagePlan>& stages, uint32_t rows,
                                         uint32_t output_rows);

}  // namespace shoal::planner
