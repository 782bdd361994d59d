// Holds what the stages of an instance take for a decoded token against what was predicted, learns what its
// machines really give, and says what an operator should know: who is slower or faster than measured, and
// whether another placement would now be better. One per instance, at its owner. No clock, no I/O.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "cluster/facts.h"
#include "cluster/planner_input.h"
#include "planner/correction.h"

namespace shoal::serving {

class DriftWatch {
 public:
  // `stage_seconds`: of steps with one row, recent. `now`: the nodes as they are, with what the instance
  // itself holds not free. Errors: those of planner::predict_step() (a node that is gone).
  Result<> observe(const cluster::InstanceFact& instance, const planner::ModelDemand& demand,
                   const cluster::PlannerInput& now, std::span<const double> stage_seconds);
  // In words, the most important first; empty while all is as predicted.
  Result<std::vector<std::string>> advice(const cluster::InstanceFact& instance,
                                          const planner::ModelDemand& demand,
                                          cluster::PlannerInput now) const;

 private:
  planner::Correction correction_;
};

}  // namespace shoal::serving
