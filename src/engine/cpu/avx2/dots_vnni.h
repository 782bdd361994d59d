// Dot products of bytes by vpdpbusd on 256-bit registers (AVX-VNNI), which desktop processors have that lack
// AVX-512.
#pragma once

#include "engine/cpu/avx2/lanes.h"

namespace shoal::engine::cpu {
namespace {

constexpr bool kByteWeightsAreOffset = true;

inline U8x64 byte_weights(const uint8_t* from) {
  return load_bytes(from);
}
inline I32x16 dot_small(I32x16 sum, U8x64 weights, int32_t activations) {
  const __m256i a = _mm256_set1_epi32(activations);
  return {_mm256_dpbusd_avx_epi32(sum.low, weights.low, a),
          _mm256_dpbusd_avx_epi32(sum.high, weights.high, a)};
}
inline I32x16 dot_bytes(I32x16 sum, U8x64 weights, int32_t activations) {
  return dot_small(sum, weights, activations);
}

}  // namespace
}  // namespace shoal::engine::cpu
