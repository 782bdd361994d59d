// A cluster that may not be at hand (tools/clusters/*.json): devices by their published figures and links
// between them.
#pragma once

#include <filesystem>
#include <vector>

#include "base/result.h"
#include "planner/planner.h"

namespace shoal::simulate {

// What of a published figure is reached. One set for all devices and all rows; docs/decisions/0010-planner.md
// says how it was chosen.
inline constexpr double kBandwidthEfficiency = 0.75;
inline constexpr double kArithmeticEfficiency = 0.4;
inline constexpr double kMemoryFraction = 0.85;          // that a model may have
inline constexpr double kGpuLayerSeconds = 120e-6;       // a layer's kernels are launched, however small
inline constexpr double kGpuHandOverSeconds = 20e-6;     // from a GPU's last kernel to a message on its way
inline constexpr double kProcessorLayerSeconds = 20e-6;  // barriers between threads

struct ClusterFile {
  std::string name;
  std::vector<planner::Device> devices;
  std::vector<planner::LinkFigures> links;
};

// {"name", "devices": [{"name", "count", "memory_gb", "bandwidth_gb_s", "tflops", "kind": "gpu" | "cpu"}],
//  "links": [{"between": [NAME, NAME], "shape": "mesh" | "ring", "kind", "rtt_us", "rtt_p99_us", "gbit_s"}]}.
// "between" are names of devices' entries, or "*"; of several rules for a pair the last one holds. In a ring
// messages between those that are not neighbours are passed on, the shorter way.
Result<ClusterFile> read_cluster_file(const std::filesystem::path& path);

}  // namespace shoal::simulate
