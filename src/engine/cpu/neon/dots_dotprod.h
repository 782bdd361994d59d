// Dot products of bytes by sdot (FEAT_DotProd). Include after lanes.h.
#pragma once

namespace shoal::engine::cpu {
namespace {

inline I32x16 dot_small(I32x16 sum, U8x64 weights, int32_t activations) {
  const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(activations));
  return each_i32([&](int i) { return vdotq_s32(sum.part[i], vreinterpretq_s8_u8(weights.part[i]), a); });
}
inline I32x16 dot_bytes(I32x16 sum, U8x64 weights, int32_t activations) {
  return dot_small(sum, weights, activations);
}

}  // namespace
}  // namespace shoal::engine::cpu
