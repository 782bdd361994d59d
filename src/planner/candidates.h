// The groups that a search may make stages of: every device alone and sets of devices that share a stage. All
// sets where they are few (all_sets says whether they were), else those that are likely: from each device,
// its nearest and its fastest companions.
#pragma once

#include <vector>

#include "planner/group.h"

namespace shoal::planner {

struct GroupSet {
  std::vector<Group> groups;
  bool all_sets = true;
};

GroupSet candidate_groups(const Problem& problem, Strategy strategy);

}  // namespace shoal::planner
