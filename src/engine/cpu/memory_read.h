// Reading memory as fast as a core can, and doing nothing with it: the limit of decoding. Processors differ
// in what suits them (wide loads, several streams, fetching ahead), so there are several ways; whoever wants
// the limit tries them all and keeps the best.
#pragma once

#include <cstddef>
#include <span>

namespace shoal::engine::cpu {

inline constexpr size_t kReadTaskBytes = size_t{1} << 20;

struct ReadWay {
  const char* name;                     // "2 streams, prefetched 1 KiB ahead"
  void (*read)(const std::byte* task);  // kReadTaskBytes from here on
};

std::span<const ReadWay> read_ways();  // of this machine

}  // namespace shoal::engine::cpu
