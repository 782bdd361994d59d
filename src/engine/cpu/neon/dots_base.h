// Dot products of bytes in the instructions that every AArch64 processor has.
#pragma once

#include "engine/cpu/neon/signed_weights.h"

namespace shoal::engine::cpu {
namespace {

// Two products fit 16 bits: weights are at least -128, activations -127.
inline I32x16 dot_small(I32x16 sum, U8x64 weights, int32_t activations) {
  const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(activations));
  return each_i32([&](int i) {
    const int8x16_t w = vreinterpretq_s8_u8(weights.part[i]);
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a)), high = vmull_high_s8(w, a);
    return vpadalq_s16(sum.part[i], vpaddq_s16(low, high));
  });
}
inline I32x16 dot_bytes(I32x16 sum, U8x64 weights, int32_t activations) {
  return dot_small(sum, weights, activations);
}

}  // namespace
}  // namespace shoal::engine::cpu
