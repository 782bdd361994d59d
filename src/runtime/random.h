// Random numbers that are a function of where they are used: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw:
// "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). No state to keep, so a resumed or moved sequence
// draws the same.
#pragma once

#include <array>
#include <cstdint>

namespace shoal::runtime {

// Philox 4x32 with ten rounds: a bijection of `counter` under `key`.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1), a multiple of 2^-53, of the token at `position` of a sequence with this seed.
double uniform_at(uint64_t seed, uint64_t position);

}  // namespace shoal::runtime
