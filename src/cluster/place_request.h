// What it takes to place a model: the caller (serving) knows the files and makes the demand, the cluster
// plans.
#pragma once

#include <cstdint>
#include <string>

#include "planner/planner.h"

namespace shoal::cluster {

struct PlaceRequest {
  std::string model;  // a held model's name
  planner::ModelDemand demand;
  planner::PlanOptions options;
  uint32_t layer_count = 0;
  std::string digest;
  uint32_t kv_page_tokens = 32;
  std::string weights = {};  // the class of most of them, see WeightRate; empty: unknown
};

}  // namespace shoal::cluster
