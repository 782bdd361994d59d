// Which devices serve a model, in which order, cut where, and what that should give. Pure: the same input
// gives the same placements. This first planner cuts a pipeline by memory and measured speed; see README for
// what is to come.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace shoal::planner {

struct Device {
  std::string node;                     // NodeId
  std::string name;                     // for people
  uint64_t free_memory_bytes = 0;       // that shoal may use
  double decode_bytes_per_second = 0;   // measured: weight bytes streamed in decode
  double prefill_flops_per_second = 0;  // measured
  bool holds_model = true;
};

struct LinkFigures {  // directed, between devices[from] and devices[to]
  uint32_t from = 0, to = 0;
  double round_trip_seconds = 0;
  double bytes_per_second = 0;
};

struct LayerDemand {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes_per_token = 0;
  uint64_t flops_per_token = 0;
  uint64_t active_bytes = 0;              // of weight_bytes, what one token reads; 0: all of them
  uint64_t state_bytes_per_sequence = 0;  // of a recurrent layer
};

struct ModelDemand {
  std::string name;
  std::vector<LayerDemand> layers;
  uint64_t embedding_bytes = 0;  // on the first stage
  uint64_t head_bytes = 0;       // on the last stage
  bool tied_embedding =
      false;  // head and embedding are the same bytes: counted once where one stage has both
  uint64_t head_flops_per_token = 0;
  uint64_t hidden_bytes_per_token = 0;    // activations between stages
  uint64_t overhead_bytes_per_stage = 0;  // process, scratch, buffers
};

struct PlanOptions {
  uint32_t context_tokens = 4096;  // KV to hold: context_tokens * concurrency
  uint32_t concurrency = 1;
  uint32_t state_slots = 0;  // sequences that recurrent layers hold states for
  uint32_t minimum_nodes = 1;
  std::vector<std::string> only_nodes;  // ids or names; empty: any
};

struct StagePlan {
  std::string node;
  uint32_t first_layer = 0, end_layer = 0;
  uint64_t memory_bytes = 0;
  double decode_seconds = 0;  // compute of one token
};

struct Placement {
  std::vector<StagePlan> stages;     // in pipeline order
  double tokens_per_second = 0;      // batch 1 decode
  double first_token_seconds = 0;    // of a 512-token prompt
  std::vector<std::string> reasons;  // why devices were left out, what bounds it
};

// Placements that fit, best first, at least one; an out_of_memory Error names what is missing when none fits.
Result<std::vector<Placement>> plan(const std::vector<Device>& devices, const std::vector<LinkFigures>& links,
                                    const ModelDemand& model, const PlanOptions& options);

}  // namespace shoal::planner
