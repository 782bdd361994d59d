// What the dot products of two signed bytes share.
#pragma once

#include "engine/cpu/neon/lanes.h"

namespace shoal::engine::cpu {
namespace {

constexpr bool kByteWeightsAreOffset = false;  // byte_weights() takes the 128 off again

inline U8x64 byte_weights(const uint8_t* from) {
  return each_u8([&](int i) { return veorq_u8(vld1q_u8(from + 16 * i), vdupq_n_u8(0x80)); });
}

}  // namespace
}  // namespace shoal::engine::cpu
