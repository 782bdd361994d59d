// The two searches over placements. Both minimise the seconds of one decoded token: the sum of the stages'
// compute and of the hops between them, the token's way back to the first stage included.
#pragma once

#include <cstdint>
#include <vector>

#include "planner/problem.h"

namespace shoal::planner {

// How many devices search_subsets() can take for this many layers and stay within some tens of milliseconds;
// at most 8.
uint32_t exact_device_count(uint32_t layer_count);

struct SubsetAnswers {
  std::vector<Candidate>
      best_by_count;  // [devices + 1]: the best with exactly this many stages; empty cuts: none
  std::vector<double> best_seconds_with;  // [devices]: of the best that uses this device; infinite: none
};

// Exact: every subset of Problem::devices in every order with every cut, by dynamic programming over
// (first device, set of devices used, last device, layers done). Problem::devices.size() <=
// exact_device_count().
SubsetAnswers search_subsets(const Problem& problem);

// Exact among the subsequences of `order` (device indices), without regard to the way back: for many devices.
// Empty cuts when nothing fits.
Candidate search_in_order(const Problem& problem, const std::vector<uint32_t>& order);

// The same devices in the same order, cut so that the slowest stage is as fast as possible while a token
// takes at most `slack` (a fraction) longer: where the cut hardly matters to one user, an even one serves
// several users better.
Candidate balanced(const Problem& problem, const Candidate& candidate, double slack);

}  // namespace shoal::planner
