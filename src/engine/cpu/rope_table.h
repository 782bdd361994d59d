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
// The same for rows [first_row, end_row) of a step, each with its sequence's frequencies; cosines and sines
// are those of the whole step, [rows, dimensions / 2].
void fill_rope_table(const RopeOp& op, const StepView& step, uint32_t first_row, uint32_t end_row,
                     float* cosines, float* sines);

}  // namespace shoal::engine::cpu
