// What nodes measured, as the planner wants it. Pure.
#pragma once

#include <map>
#include <string_view>
#include <vector>

#include "cluster/view.h"
#include "planner/planner.h"

namespace shoal::cluster {

// What plans are made from, now.
struct PlannerInput {
  std::vector<planner::Device> devices;
  std::vector<planner::LinkFigures> links;
};

// The best path of each pair of devices that either end has measured; one that only the other end has
// measured counts for both directions. Pairs that nobody has measured are left out: the planner has a
// default.
std::vector<planner::LinkFigures> measured_links(const std::vector<planner::Device>& devices,
                                                 const std::map<NodeId, Member>& members);

// The node's rates with weights of this class (WeightRate::weights); without them, its rates in general.
WeightRate rate_with(const NodeFact& node, std::string_view weights);

}  // namespace shoal::cluster
