// Turns what a search found into a Placement: nodes instead of classes, figures, and reasons in words.
#pragma once

#include <string>
#include <vector>

#include "planner/objective.h"

namespace shoal::planner {

std::string gibibytes(uint64_t bytes);

// Without reasons. Each class's devices are taken in plan()'s order.
Placement describe(const Problem& problem, const std::vector<Device>& devices,
                   const std::vector<Group>& groups, const std::vector<Cut>& cuts);

// "bound by reading weights on alpha: 3.10 of 9.42 ms a token"
std::string bound_reason(const Placement& placement, const std::vector<Device>& devices);
// What bf16 rows on the wire would give; empty when it is next to nothing.
std::string wire_reason(const Placement& placement, WireFormat wire);

// The best placement that has one more device, of class `c`: as a stage of its own somewhere, or as a rank
// more of some stage. Empty cuts: none fits. May add groups.
std::vector<Cut> with_device(const Problem& problem, std::vector<Group>& groups, const std::vector<Cut>& cuts,
                             uint16_t c);
// Why the device `name` of class `c` was left out, told from the best placement with it.
std::string left_out_reason(const Problem& problem, const std::vector<Group>& groups,
                            const std::vector<Cut>& best, const std::vector<Cut>& with, uint16_t c,
                            const std::string& name);

}  // namespace shoal::planner
