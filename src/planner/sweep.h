// The search for the placement with the least sum of seconds (stages, hops, the token's way back) among those
// whose slowest stage and link stay below a cap. Dynamic programming over (devices used, first stage's
// leader, last group, layers done), one level per number of devices, cut short by a lower bound. When the
// allowed work does not suffice the most promising sets of a level go on: a beam.
#pragma once

#include <cstdint>
#include <vector>

#include "planner/used_set.h"

namespace shoal::planner {

struct SweepLimits {
  double most_stage_seconds = kNever;
  double below_seconds = kNever;  // only what is faster counts
  uint64_t work = 0;              // in steps of the inner loops
  Strategy strategy = Strategy::automatic;
  uint32_t minimum_devices = 1;
  bool all_groups = true;  // may follow every partial placement; else the likeliest
};

struct SweepAnswer {
  std::vector<Cut> cuts;  // empty: none
  double seconds = kNever;
  bool complete = true;  // nothing that could be better was left out
  uint64_t work = 0;
};

// Problem's classes must fit (see fits_sweep).
// `sets` is of the same table.
SweepAnswer sweep(const PassTable& table, UsedSets& sets, const SweepLimits& limits);

// Sets of devices are kept as 64 bits; up to 64 devices always fit.
bool fits_sweep(const Problem& problem);

}  // namespace shoal::planner
