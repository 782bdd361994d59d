// Measuring the path to another node: what goes over the wire, and the side that asks. The other side is
// link_probe_responder.h. TCP, as the links of workers; the addresses that a worker would be given, routed as
// the system routes them.
//
// All frames have 32 bytes, little-endian. First a hello: magic [8], nonce [16], zero [8]; the nonce was
// given over the cluster's bus. Whoever does not know one hears nothing and is hung up on. Then, in any
// order:
//   ping    type 1, zero [7], value [8], zero [16]: comes back as it is
//   data    type 2, zero [7], length [8], zero [16], and that many bytes: they only arrive
//   report  type 3, zero [31]: comes back with the bytes per second at which the data arrived as value
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace shoal::serving {

using ProbeNonce = std::array<std::byte, 16>;
using ProbeFrame = std::array<std::byte, 32>;

enum class ProbeFrameType : uint8_t { ping = 1, data = 2, report = 3 };

inline constexpr size_t kMaxProbePings = 256;
inline constexpr uint64_t kMaxProbeChunkBytes = 64 * 1024;
inline constexpr uint64_t kProbeBurstBytes = 4 << 20;
inline constexpr Duration kProbeBurstTime = milliseconds(50);  // at full speed, which takes some round trips
inline constexpr Duration kMaxProbeTime = seconds(4);          // of a connection

ProbeFrame probe_hello(const ProbeNonce& nonce);
// The nonce of a hello; malformed.
Result<ProbeNonce> read_probe_hello(const ProbeFrame& frame);
ProbeFrame probe_frame(ProbeFrameType type, uint64_t value);
struct ProbeCommand {
  ProbeFrameType type;
  uint64_t value;
};
Result<ProbeCommand> read_probe_frame(const ProbeFrame& frame);  // malformed

// Bytes that arrived, in order: all so far at a time.
struct Arrival {
  TimePoint time;
  uint64_t bytes;
};
// The rate of a burst's later half: by then TCP has found what the path can carry, and what lay ready before
// the first look does not count. 0 for nothing.
double arrival_rate(std::span<const Arrival> arrivals);

struct PathFigures {
  std::string local_address;  // that the system chose
  double rtt_p50_us = 0, rtt_p99_us = 0;
  double bytes_per_second = 0;  // from here to there
};

// Blocks for some 100 ms on a LAN, a second or two on a slow path, and soon ends when `cancelled` becomes
// true. Errors: unavailable, timeout, cancelled, malformed.
Result<PathFigures> measure_path(const std::string& address, uint16_t port, const ProbeNonce& nonce,
                                 const std::atomic<bool>& cancelled);

}  // namespace shoal::serving
