#include "planner/costs.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace shoal::planner {
namespace {

constexpr double kSlowestOfHundred = 0.01;
constexpr double kSumSeconds = 2e-6;  // framing, checksums and adding up some kilobytes

struct Usual {
  double round_trip_seconds, p99_seconds, bytes_per_second;
};

// By LinkKind. Wired: 1 Gbit/s less framing. Wi-Fi: a quiet 5 GHz network.
constexpr std::array<Usual, 6> kUsual = {{{0.2e-3, 0.4e-3, 117e6},
                                          {20e-6, 60e-6, 5e9},
                                          {0.2e-3, 0.4e-3, 117e6},
                                          {4e-3, 30e-3, 40e6},
                                          {0.3e-3, 0.6e-3, 2.5e9},
                                          {6e-6, 20e-6, 10e9}}};

double positive_or(double value, double otherwise) {
  return value > 0 && std::isfinite(value) ? value : otherwise;
}

}  // namespace

Path path_of(const LinkFigures& link) {
  const Usual& usual = kUsual[static_cast<size_t>(link.kind)];
  double round_trip = positive_or(link.round_trip_seconds, usual.round_trip_seconds);
  double unmeasured_p99 = link.round_trip_seconds > 0 ? round_trip : usual.p99_seconds;
  double p99 = std::max(round_trip, positive_or(link.round_trip_p99_seconds, unmeasured_p99));
  return {round_trip / 2, (p99 - round_trip) / 2, positive_or(link.bytes_per_second, usual.bytes_per_second),
          link.kind};
}

std::string_view to_string(LinkKind kind) {
  constexpr std::array<std::string_view, 6> names = {"network", "loopback",    "Ethernet",
                                                     "Wi-Fi",   "Thunderbolt", "InfiniBand"};
  return names[static_cast<size_t>(kind)];
}

double latency_seconds(const Path& path, uint32_t messages) {
  double slow = messages == 1 ? kSlowestOfHundred : 1 - std::pow(1 - kSlowestOfHundred, messages);
  return path.one_way_seconds + slow * path.tail_seconds;
}

double message_seconds(const Path& path, double bytes) {
  return latency_seconds(path, 1) + bytes / path.bytes_per_second;
}

double all_reduce_seconds(const Path& slowest, uint32_t ranks, double bytes) {
  if (ranks < 2) return 0;
  double peers = ranks - 1;
  double latency = latency_seconds(slowest, ranks * (ranks - 1)) + kSumSeconds;
  double whole = latency + peers * bytes / slowest.bytes_per_second;
  double slices = 2 * latency + 2 * peers / ranks * bytes / slowest.bytes_per_second;
  return std::min(whole, slices);
}

double all_gather_seconds(const Path& slowest, uint32_t ranks, double bytes) {
  if (ranks < 2) return 0;
  return latency_seconds(slowest, ranks * (ranks - 1)) +
         bytes * (ranks - 1) / ranks / slowest.bytes_per_second;
}

}  // namespace shoal::planner
