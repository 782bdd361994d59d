// What a placement gives, and the search for the one that gives most of what is asked for. Every objective is
// a function of two figures of a pass of rows through all stages: the sum of their seconds and the slowest of
// them.
#pragma once

#include <cstdint>
#include <vector>

#include "planner/rows.h"

namespace shoal::planner {

struct PassSums {
  double seconds = 0;          // stages, hops and the token's way back
  double slowest_seconds = 0;  // of a stage, or of the time that a link is taken
};

struct Figures {
  double token_seconds = 0;        // one user
  double batch_token_seconds = 0;  // of `concurrency` users together, per token
  double first_token_seconds = 0;
};

PassSums pass_sums(const Problem& problem, const std::vector<Group>& groups, const std::vector<Cut>& cuts,
                   Pass pass);
Figures figures(const Problem& problem, const std::vector<Group>& groups, const std::vector<Cut>& cuts);
// Of these, the one that Problem::options.objective names: less is better.
double objective_seconds(const Problem& problem, const std::vector<Group>& groups,
                         const std::vector<Cut>& cuts);

struct Optimum {
  std::vector<Cut> cuts;  // empty: nothing fits
  double seconds = kNever;
  bool exact = true;
  uint64_t work = 0;
};

// `work` bounds the steps of the inner loops over all sweeps together.
Optimum optimise(const Problem& problem, const GroupSet& set, Strategy strategy, uint64_t work);

// The pass that the objective is mostly about, in a placement of so many stages.
Pass main_pass(const Problem& problem, size_t stages);
// A good cut for the objective of these groups in this order: the least sum, or one that evens stages out.
// Empty when none fits. `table` is of main_pass().
std::vector<Cut> best_cut(const PassTable& table, const std::vector<Cut>& order);

// The same groups in the same order, cut so that the slowest stage is as fast as possible while the objective
// loses at most `slack` (a fraction): where the cut hardly matters to one user, an even one serves several
// better.
std::vector<Cut> balanced(const Problem& problem, const std::vector<Group>& groups,
                          const std::vector<Cut>& cuts, double slack);

}  // namespace shoal::planner
