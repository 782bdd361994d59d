// A model as public facts tell it (tools/models/*.json): shapes, and bits a weight. What the planner needs of
// it is counted from these.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "planner/planner.h"

namespace shoal::simulate {

Result<planner::ModelDemand> read_model_file(const std::filesystem::path& path);

}  // namespace shoal::simulate
