// The floats of 8 and 4 bits that model files use, widened exactly: FP8 E4M3 (the variant without
// infinities), the bare exponents E8M0 and the nibbles E2M1 of the OCP microscaling formats
// (https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf).
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace shoal::formats {

// Sign, 4 bits of exponent (bias 7), 3 bits of mantissa: up to 448 in steps from 2^-9; 0x7f and 0xff are NaN.
constexpr float f8_e4m3_to_f32(uint8_t bits) {
  const uint32_t sign = uint32_t{bits & 0x80u} << 24;
  const uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
  const float value = static_cast<float>(magnitude) * 0x1p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

// 2^(bits - 127): the smallest is subnormal, 255 is NaN.
constexpr float e8m0_to_f32(uint8_t bits) {
  if (bits == 0xff) return std::bit_cast<float>(0x7fc00000u);
  return std::bit_cast<float>(bits == 0 ? 0x00400000u : uint32_t{bits} << 23);
}

// Twice the value of each E2M1 nibble, so that all are integers: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their
// negatives.
inline constexpr std::array<int8_t, 16> kFp4Doubled = {0, 1,  2,  3,  4,  6,  8,  12,
                                                       0, -1, -2, -3, -4, -6, -8, -12};

constexpr float fp4_to_f32(uint32_t nibble) {
  if (nibble == 8) return -0.0f;
  return static_cast<float>(kFp4Doubled[nibble]) * 0.5f;
}

}  // namespace shoal::formats
