// What a message and a sum between ranks cost, from a link's figures. The one place that knows how links of a
// kind behave when nobody has measured them, and which algorithm link/collectives.h would take.
#pragma once

#include <cstdint>
#include <string_view>

#include "planner/planner.h"

namespace shoal::planner {

inline constexpr double kDefaultDecodeBytesPerSecond = 5e9;  // a device that nobody has measured yet
inline constexpr double kDefaultPrefillFlopsPerSecond = 50e9;
inline constexpr double kDefaultFlopsPerThread = 25e9;  // where the threads are known
inline constexpr uint32_t kMostRanks = 8;               // of a stage

// One direction between two devices.
struct Path {
  double one_way_seconds = 0;  // of an empty message, usually
  double tail_seconds = 0;     // what the slowest of a hundred takes longer
  double bytes_per_second = 0;
  LinkKind kind = LinkKind::unknown;

  bool operator==(const Path&) const = default;
};

// Measured figures, with the kind's usual ones where a figure is missing.
Path path_of(const LinkFigures& link);
std::string_view to_string(LinkKind kind);  // for people: "Wi-Fi"

// Expected until the last of `messages` that travel at once is there, without their bytes.
double latency_seconds(const Path& path, uint32_t messages);
double message_seconds(const Path& path, double bytes);
// `slowest`: the worst figures among all pairs of the group. Every rank has the sum of `bytes` of f32.
double all_reduce_seconds(const Path& slowest, uint32_t ranks, double bytes);
// Every rank has all of `bytes`, of which each had its part.
double all_gather_seconds(const Path& slowest, uint32_t ranks, double bytes);

}  // namespace shoal::planner
