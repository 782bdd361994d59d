// The cluster as JSON, for `shoal nodes`, `shoal ps` and the API; the format is in docs/api.md, section
// "Cluster".
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "cluster/facts.h"
#include "planner/planner.h"
#include "serving/figures.h"

namespace shoal::serving {

using NodeNames = std::map<cluster::NodeId, std::string>;

JsonObject node_json(const cluster::NodeFact& node);
// Every measured link between nodes that are here; `now` in Unix seconds, for their age.
JsonArray links_json(const std::vector<cluster::NodeFact>& nodes, int64_t now);
// `figures` may be nullptr: nothing was measured yet.
JsonObject instance_json(const cluster::InstanceFact& instance, const NodeNames& names,
                         const FiguresMessage* figures);
JsonObject placement_json(const planner::Placement& placement, const planner::PlanOptions& options,
                          const NodeNames& names);

}  // namespace shoal::serving
