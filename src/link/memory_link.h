// Links inside one process, with a wire that can misbehave on demand, the same way for the same seed: frames
// dropped, swapped, damaged or delayed, the wire cut, an end that stops answering. For tests of whatever uses
// a Link.
#pragma once

#include <cstdint>
#include <memory>

#include "link/link.h"

namespace shoal::link {

struct WireFaults {
  uint64_t seed = 1;
  double drop = 0;    // probability per frame
  double swap = 0;    // of trading places with the frame before it, if that has not arrived
  double damage = 0;  // of one flipped bit
  Duration delay{};   // of every frame
  uint64_t cut_after_bytes = UINT64_MAX;  // of payload, both directions together
};

class MemoryWire;

struct MemoryLinks {
  std::unique_ptr<Link> first;  // its peer is called "second", and the other way round
  std::unique_ptr<Link> second;
  std::shared_ptr<MemoryWire> wire;
};
MemoryLinks make_memory_links(const LinkOptions& options = {}, const WireFaults& faults = {});

enum class WireEnd : uint8_t { first, second };
// From now on the end neither sends nor answers, like a stopped process; the other loses it after a lease.
void freeze(MemoryWire& wire, WireEnd end);
void damage_next_frame(MemoryWire& wire);
void cut(MemoryWire& wire);

}  // namespace shoal::link
