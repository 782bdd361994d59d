#include "engine/cpu/rope_table.h"

#include <algorithm>
#include <cmath>

#include "base/assert.h"

namespace shoal::engine::cpu {

SineCosine sine_cosine(double angle) {
  // angle = quarter * pi / 2 + r, |r| <= pi / 4, with pi / 2 in three parts of 33, 33 and 53 bits.
  double quarter = std::floor(angle * 0.63661977236758134308 + 0.5);
  double r = angle - quarter * 1.57079632673412561417;
  r = r - quarter * 6.07710050630396597660e-11;
  r = r - quarter * 2.02226624879595063154e-21;
  double z = r * r;
  // Taylor to r^17 and r^16.
  double s = 1.0 / 355687428096000.0;
  for (double factor : {-1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
                        -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0}) {
    s = s * z + factor;
  }
  double sine = s * r;
  double cosine = 1.0 / 20922789888000.0;
  for (double factor : {-1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0,
                        -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0}) {
    cosine = cosine * z + factor;
  }
  switch (static_cast<int64_t>(quarter) & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

void fill_rope_table(const RopeOp& op, std::span<const int32_t> positions, float* cosines, float* sines) {
  double magnitude = op.magnitude;
  for (int32_t position : positions) {
    for (float frequency : op.inverse_frequencies) {
      SineCosine value = sine_cosine(static_cast<double>(position) * static_cast<double>(frequency));
      *cosines++ = static_cast<float>(value.cosine * magnitude);
      *sines++ = static_cast<float>(value.sine * magnitude);
    }
  }
}

void fill_rope_table(const RopeOp& op, const StepView& step, uint32_t first_row, uint32_t end_row,
                     float* cosines, float* sines) {
  const size_t pairs = op.inverse_frequencies.size();
  RopeOp long_op = op;
  long_op.inverse_frequencies = op.long_inverse_frequencies;
  SHOAL_ASSERT(op.long_inverse_frequencies.empty() || op.long_inverse_frequencies.size() == pairs);
  for (const SequenceRows& sequence : step.sequences) {
    const uint32_t first = std::max(first_row, sequence.first_row);
    const uint32_t end = std::min(end_row, sequence.first_row + sequence.row_count);
    if (first >= end) continue;
    const bool is_long =
        !op.long_inverse_frequencies.empty() && sequence.prompt_tokens > op.long_after_tokens;
    fill_rope_table(is_long ? long_op : op, step.positions.subspan(first, end - first),
                    cosines + first * pairs, sines + first * pairs);
  }
}

}  // namespace shoal::engine::cpu
