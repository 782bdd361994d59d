// exp and log that give the same bits on every machine: plain IEEE multiplications and additions in a fixed
// order, no library calls and no fused operations (the build turns contraction off). For the sampler, which
// runs wherever the last stage happens to be. The engine's own exp is fused and private to its kernels; this
// one must not depend on them.
#pragma once

#include <bit>
#include <cstdint>

namespace shoal::runtime {

// e^x for x <= 0 (also -infinity), relative error below 3e-7; 0 for x < -87. Straight-line code that
// vectorises.
inline float exp_of_negative(float x) {
  const float clamped = x > -87.0f ? x : -87.0f;
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to an integer in the low bits.
  const float shifted = clamped * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;  // Cody and Waite: ln 2 in two parts
  float p = 1.9841270e-4f;  // Taylor to the seventh power: 2e-8 at the border
  p = p * r + 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 5.0e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) - 0x4B400000u + 127u) << 23;
  const float value = p * std::bit_cast<float>(exponent);
  return x < -87.0f ? 0.0f : value;
}

// ln x for finite normal x > 0, relative error below 1e-14.
double natural_log(double x);

}  // namespace shoal::runtime
