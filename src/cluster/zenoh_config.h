// How the nodes of one cluster find each other and stay apart from other clusters on the same network.
// Everything is derived from the cluster's name: the multicast port, the range of listening ports and the
// prefix of all keys.
//
// - On a network: multicast scouting on 224.0.0.224 and the cluster's own port; gossip for who multicast does
// not reach.
// - On one machine, with or without a network: each node listens on the first free port of the cluster's
// range and
//   connects to all the others of the range on loopback.
// - Across networks: `peers`, host or host:port; without a port the first ones of the range are tried.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/result.h"

namespace shoal::cluster {

struct ZenohOptions {
  std::string cluster = "shoal";   // nodes of another name are neither seen nor heard
  std::vector<std::string> peers;  // host, host:port, [ipv6] or [ipv6]:port
  std::string listen;              // numeric address, perhaps with a port; empty: all interfaces
  // IPv4 addresses that this machine got after the process started: Zenoh looks at the interfaces only once.
  std::vector<std::string> late_addresses;
  bool multicast = true;                 // off when `listen` is a loopback address
  uint32_t lease_ms = limits::kLeaseMs;  // silence after which a node counts as having left
};

inline constexpr uint16_t kPortRangeSize = 16;

// FNV-1a, 64 bit: the same on every build of every version.
uint64_t cluster_hash(std::string_view cluster);
uint16_t first_port(std::string_view cluster);  // of kPortRangeSize, below the systems' ephemeral ports
uint16_t multicast_port(std::string_view cluster);
std::string key_prefix(std::string_view cluster);  // "shoal/0123456789abcdef"

// The configuration to open a session with, for a listening port that is free now. invalid_argument for
// addresses that make no sense.
Result<std::string> zenoh_configuration(const ZenohOptions& options);

}  // namespace shoal::cluster
