#include "cluster_file.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

namespace shoal::simulate {
namespace {

constexpr uint64_t kMostFileBytes = 1 << 20;
constexpr double kGiga = 1e9;

struct Entry {
  std::string name;
  bool gpu = true;
  uint32_t first = 0, count = 1;  // of ClusterFile::devices
};

Result<> read_devices(const JsonObject& object, ClusterFile& cluster, std::vector<Entry>& entries) {
  SHOAL_TRY(const JsonArray* array, get_array(object, "devices"));
  if (!array) return fail(ErrorCode::malformed, "'devices' are missing");
  for (const Json& element : *array) {
    if (!element.is_object()) return fail(ErrorCode::malformed, "a device is no object");
    const JsonObject& fields = element.get_object();
    Entry entry;
    SHOAL_TRY(entry.name, require_string(fields, "name"));
    SHOAL_TRY(auto count, get_integer(fields, "count", 1, static_cast<int64_t>(limits::kMaxNodes)));
    entry.count = static_cast<uint32_t>(count.value_or(1));
    entry.first = static_cast<uint32_t>(cluster.devices.size());
    SHOAL_TRY(double memory, require_number(fields, "memory_gb"));
    SHOAL_TRY(double bandwidth, require_number(fields, "bandwidth_gb_s"));
    SHOAL_TRY(double tflops, require_number(fields, "tflops"));
    SHOAL_TRY(auto kind, get_string(fields, "kind"));
    entry.gpu = kind.value_or("gpu") == "gpu";
    for (uint32_t i = 0; i < entry.count; ++i) {
      planner::Device device;
      device.name = entry.count == 1 ? entry.name : fmt::format("{}-{}", entry.name, i + 1);
      device.node = device.name;
      device.free_memory_bytes = static_cast<uint64_t>(memory * kMemoryFraction * kGiga);
      device.decode_bytes_per_second = bandwidth * kBandwidthEfficiency * kGiga;
      device.prefill_flops_per_second = tflops * kArithmeticEfficiency * 1e12;
      device.layer_fixed_seconds = entry.gpu ? kGpuLayerSeconds : kProcessorLayerSeconds;
      cluster.devices.push_back(std::move(device));
    }
    entries.push_back(std::move(entry));
  }
  if (cluster.devices.size() > limits::kMaxNodes)
    return fail(ErrorCode::limit_exceeded, fmt::format("{} devices are too many", cluster.devices.size()));
  return {};
}

Result<planner::LinkKind> kind_of(std::string_view name) {
  constexpr std::array<std::string_view, 6> names = {"unknown", "loopback",    "ethernet",
                                                     "wifi",    "thunderbolt", "infiniband"};
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<planner::LinkKind>(i);
  return fail(ErrorCode::malformed, fmt::format("link kind '{}' is unknown", name));
}

// Passed on so many times between places i and j of a ring of n.
double ring_hops(uint32_t i, uint32_t j, uint32_t n) {
  uint32_t forward = i < j ? j - i : i - j;
  return std::min(forward, n - forward);
}

Result<> apply_link(const JsonObject& fields, const std::vector<Entry>& entries, const ClusterFile& cluster,
                    std::vector<planner::LinkFigures>& matrix) {
  SHOAL_TRY(const JsonArray* between, get_array(fields, "between"));
  if (!between || between->size() != 2 || !(*between)[0].is_string() || !(*between)[1].is_string())
    return fail(ErrorCode::malformed, "'between' of a link are not two names");
  planner::LinkFigures figures;
  SHOAL_TRY(std::string kind, require_string(fields, "kind"));
  SHOAL_TRY(figures.kind, kind_of(kind));
  SHOAL_TRY(double rtt, require_number(fields, "rtt_us"));
  SHOAL_TRY(auto p99, get_number(fields, "rtt_p99_us"));
  SHOAL_TRY(double gbits, require_number(fields, "gbit_s"));
  SHOAL_TRY(auto shape, get_string(fields, "shape"));
  figures.round_trip_seconds = rtt * 1e-6;
  figures.round_trip_p99_seconds = p99.value_or(rtt) * 1e-6;
  figures.bytes_per_second = gbits * kGiga / 8;
  const size_t count = cluster.devices.size();
  auto matches = [&](const Json& name, const Entry& entry) {
    return name.get_string() == "*" || std::string_view(name.get_string()) == entry.name;
  };
  for (const Entry& a : entries) {
    for (const Entry& b : entries) {
      if (!matches((*between)[0], a) || !matches((*between)[1], b)) continue;
      for (uint32_t i = a.first; i < a.first + a.count; ++i) {
        for (uint32_t j = b.first; j < b.first + b.count; ++j) {
          if (i == j) continue;
          planner::LinkFigures link = figures;
          if (shape.value_or("mesh") == "ring" && a.first == b.first) {
            double hops = ring_hops(i - a.first, j - a.first, a.count);
            link.round_trip_seconds *= hops, link.round_trip_p99_seconds *= hops;
          }
          // Of a round trip both ends hand over.
          double hand_over = (a.gpu ? kGpuHandOverSeconds : 0) + (b.gpu ? kGpuHandOverSeconds : 0);
          link.round_trip_seconds += hand_over, link.round_trip_p99_seconds += hand_over;
          for (auto [from, to] : {std::pair{i, j}, std::pair{j, i}}) {
            link.from = from, link.to = to;
            matrix[size_t{from} * count + to] = link;
          }
        }
      }
    }
  }
  return {};
}

}  // namespace

Result<ClusterFile> read_cluster_file(const std::filesystem::path& path) {
  SHOAL_TRY(std::string text, read_text_file(path, kMostFileBytes));
  SHOAL_TRY(JsonObject object, parse_json_object(text, path.string()));
  ClusterFile cluster;
  SHOAL_TRY(cluster.name, require_string(object, "name"));
  std::vector<Entry> entries;
  SHOAL_TRY_VOID(read_devices(object, cluster, entries));
  const auto count = static_cast<uint32_t>(cluster.devices.size());
  std::vector<planner::LinkFigures> matrix(size_t{count} * count);
  for (uint32_t i = 0; i < count; ++i)
    for (uint32_t j = 0; j < count; ++j)
      matrix[size_t{i} * count + j].from = i, matrix[size_t{i} * count + j].to = j;
  SHOAL_TRY(const JsonArray* links, get_array(object, "links"));
  for (const Json& element : links ? *links : JsonArray()) {
    if (!element.is_object()) return fail(ErrorCode::malformed, "a link is no object");
    SHOAL_TRY_VOID(apply_link(element.get_object(), entries, cluster, matrix));
  }
  std::erase_if(matrix, [](const planner::LinkFigures& link) { return link.from == link.to; });
  cluster.links = std::move(matrix);
  return cluster;
}

}  // namespace shoal::simulate
