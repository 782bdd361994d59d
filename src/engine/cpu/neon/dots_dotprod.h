// Dot products of bytes by sdot (FEAT_DotProd).
#pragma once

#include "engine/cpu/neon/signed_weights.h"

namespace shoal::engine::cpu {
namespace {

inline I32x16 dot_small(I32x16 sum, U8x64 weights, int32_t activations) {
  const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(activations));
  return each_i32([&](int i) { return vdotq_s32(sum.part[i], vreinterpretq_s8_u8(weights.part[i]), a); });
}
inline I32x16 dot_bytes(I32x16 sum, U8x64 weights, int32_t activations) {
  return dot_small(sum, weights, activations);
}
// With word `lane` of the four in `activations`.
template <int lane>
inline I32x16 dot_by_lane(I32x16 sum, U8x64 weights, int8x16_t activations) {
  return each_i32([&](int i) {
    return vdotq_laneq_s32(sum.part[i], vreinterpretq_s8_u8(weights.part[i]), activations, lane);
  });
}

}  // namespace
}  // namespace shoal::engine::cpu
