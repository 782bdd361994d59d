// Cosines and sines of rotary embeddings, the same on every machine: double arithmetic with plain IEEE
// operations, rounded once to float. libm's own differ between platforms.
#pragma once

#include <cstdint>
#include <span>

#include "engine/backend.h"

namespace shoal::engine::cpu {

struct SineCosine {
  double sine;
  double cosine;
};
// |angle| < 2^24 or so; error below 1e-9, and about 1e-16 for |angle| < 1e6.
SineCosine sine_cosine(double angle);

// For each position, [dimensions / 2] cosines and as many sines, times the op's magnitude.
// cosines and sines are [positions.size(), dimensions / 2].
void fill_rope_table(const RopeOp& op, std::span<const int32_t> positions, float* cosines, float* sines);

}  // namespace shoal::engine::cpu
