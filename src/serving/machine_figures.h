// What was measured of a machine, and its JSON form, in which it comes from the measuring process, lies in
// the cache and is checked.
#pragma once

#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "cluster/measured_facts.h"

namespace shoal::serving {

struct MachineFigures {
  double decode_bytes_per_second = 0;   // memory that no cache holds, read by all threads together
  double prefill_flops_per_second = 0;  // weights of 8 bits, many rows; multiply-adds times two
  std::vector<cluster::WeightRate> weight_rates = {};
};

JsonObject to_json(const MachineFigures& figures);
// malformed: a rate that is none, or no rate of the memory at all.
Result<MachineFigures> machine_figures_from_json(const JsonObject& object);

}  // namespace shoal::serving
