// The planner's input made ready for the search: usable devices in classes of equals, layers in kinds,
// checked sums, links as a matrix. Shared by all that follows.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "planner/costs.h"
#include "planner/planner.h"

namespace shoal::planner {

// Devices that may change places without anybody noticing: equal figures, equal links to everybody.
struct DeviceClass {
  Device figures;
  std::vector<uint32_t> devices;  // indices into plan()'s devices
  uint32_t count() const { return static_cast<uint32_t>(devices.size()); }
};

struct LayerKind {
  LayerDemand demand;       // active_bytes and weight_bytes as given; all sums below are checked
  uint64_t kept_bytes = 0;  // keys, values and states of all tokens that the layer holds
  uint64_t memory_bytes() const { return demand.weight_bytes + kept_bytes; }
};

// So many are searched more thoroughly than there is time for with more.
inline constexpr uint32_t kFewDevices = 16;

struct Problem {
  std::vector<DeviceClass> classes;
  std::vector<Path> paths;  // [from * classes + to]; between two of a class on the diagonal
  std::vector<LayerKind> kinds;
  std::vector<uint16_t> kind_of;              // [layer_count]
  std::vector<uint64_t> memory_bytes_before;  // [layer_count + 1]: weights and what is kept, unshared
  uint64_t embedding_bytes = 0, head_bytes = 0, overhead_bytes = 0;
  bool tied_embedding = false;
  double head_flops = 0;
  double logits_bytes = 0;  // of a row
  double hidden_bytes = 0;  // of a row, f32
  PlanOptions options;      // counts at least 1

  uint32_t layer_count() const { return static_cast<uint32_t>(kind_of.size()); }
  uint32_t device_count() const;
  const Path& path(uint32_t from, uint32_t to) const { return paths[size_t{from} * classes.size() + to]; }
  double wire_row_bytes() const { return options.wire == WireFormat::bf16 ? hidden_bytes / 2 : hidden_bytes; }
  // Embedding, head and overhead of a rank with this share of a stage with these layers.
  uint64_t end_bytes(uint32_t first_layer, uint32_t end_layer, double share) const;
  uint64_t stage_memory_bytes(uint32_t first_layer, uint32_t end_layer) const;  // of one rank alone
};

enum class Symmetry : uint8_t { used, ignored };

// All sums are checked once here, so that the search needs no checks: an Error when sizes overflow or make no
// sense. `usable[i]` says which of `devices` may be taken at all.
Result<Problem> make_problem(const std::vector<Device>& devices, const std::vector<bool>& usable,
                             const std::vector<LinkFigures>& links, const ModelDemand& model,
                             const PlanOptions& options, Symmetry symmetry = Symmetry::used);

// Of a layer, with `rows` rows at once.
double active_bytes(const LayerDemand& layer, double rows);

}  // namespace shoal::planner
