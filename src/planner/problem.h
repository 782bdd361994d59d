// The planner's input made ready for the search: usable devices only, prefix sums over the layers, hop times
// as matrices. Shared by the searches (search.h) and by what turns their answer into words (planner.cpp).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "planner/planner.h"

namespace shoal::planner {

inline constexpr double kDefaultRoundTripSeconds = 0.2e-3;   // a wired link that nobody has measured yet
inline constexpr double kDefaultLinkBytesPerSecond = 117e6;  // 1 Gbit/s less framing
inline constexpr double kDefaultDecodeBytesPerSecond = 5e9;  // a device that nobody has measured yet
inline constexpr double kDefaultPrefillFlopsPerSecond = 50e9;
inline constexpr uint32_t kPromptTokens = 512;  // of the first-token figure

// One contiguous run of layers on one device (an index into Problem::devices).
struct Cut {
  uint32_t device = 0;
  uint32_t first_layer = 0, end_layer = 0;
};

struct Candidate {
  std::vector<Cut> cuts;  // in pipeline order
  double seconds = 0;     // of one decoded token: all stages and all hops
};

struct Problem {
  std::vector<Device> devices;  // usable ones: hold the model, are asked for, have room for a layer
  uint32_t layer_count = 0;
  std::vector<double> weight_bytes_before;    // [layer_count + 1]: of the layers before this one
  std::vector<double> active_bytes_before;    // [layer_count + 1]: of these, what one token reads
  std::vector<uint64_t> memory_bytes_before;  // [layer_count + 1]: weights, KV and states
  std::vector<double> flops_before;           // [layer_count + 1]: per token
  uint64_t embedding_bytes = 0, head_bytes = 0;
  bool tied_embedding = false;
  double head_flops = 0;
  uint64_t overhead_bytes = 0;
  double hidden_bytes = 0;
  uint32_t minimum_nodes = 1;
  std::vector<double> hop_seconds;     // [from * devices + to]: one token's hidden row, one way
  std::vector<double> return_seconds;  // [from * devices + to]: the sampled token, back to the first stage
  std::vector<double> link_bytes_per_second;  // [from * devices + to]

  size_t pair(uint32_t from, uint32_t to) const { return size_t{from} * devices.size() + to; }
  uint64_t stage_memory_bytes(uint32_t first_layer, uint32_t end_layer) const;
  bool fits(uint32_t device, uint32_t first_layer, uint32_t end_layer) const {
    return stage_memory_bytes(first_layer, end_layer) <= devices[device].free_memory_bytes;
  }
  // Compute of one token's decode: the weights that it reads streamed once.
  double stage_seconds(uint32_t device, uint32_t first_layer, uint32_t end_layer) const;
  // All of the stage's weights streamed once, as a prompt of many tokens does.
  double read_seconds(uint32_t device, uint32_t first_layer, uint32_t end_layer) const;
  double token_seconds(const std::vector<Cut>& cuts) const;
  double first_token_seconds(const std::vector<Cut>& cuts) const;
};

// All sums are checked once here, so that the search needs no checks: an Error when sizes overflow or make no
// sense. `usable[i]` says which of `devices` may be taken at all; Problem::devices keeps their order.
Result<Problem> make_problem(const std::vector<Device>& devices, const std::vector<bool>& usable,
                             const std::vector<LinkFigures>& links, const ModelDemand& model,
                             const PlanOptions& options);

}  // namespace shoal::planner
