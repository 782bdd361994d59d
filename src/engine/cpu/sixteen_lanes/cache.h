// How keys, values and latent rows lie in the cache, and how they get there, over sixteen lanes. Include
// after a lanes.h.
//
// q8: blocks of kCacheBlock values (the last one of a head or row may be short) as int8 with an f16 scale,
// max|x| / 127; the int8 are x * (127 / max|x|) rounded to nearest even, as for activations (prepare.h). A
// block that holds an infinity or NaN gets scale NaN.
#pragma once

#include "engine/cpu/sixteen_lanes/elementwise.h"
#include "engine/cpu/sixteen_lanes/prepare.h"

namespace shoal::engine::cpu {
namespace {

struct CacheF32 {
  static constexpr size_t kBytes = 4;
  static constexpr bool kScaled = false;
  static F32x16 load_values(const uint8_t* from) { return load(reinterpret_cast<const float*>(from)); }
};
struct CacheF16 {
  static constexpr size_t kBytes = 2;
  static constexpr bool kScaled = false;
  static F32x16 load_values(const uint8_t* from) { return load_f16(from); }
};
struct CacheQ8 {
  static constexpr size_t kBytes = 1;
  static constexpr bool kScaled = true;  // values want their block's scale
  static F32x16 load_values(const uint8_t* from) { return to_f32(load_i8(from)); }
};

void to_q8(const float* values, size_t size, int8_t* to, uint16_t* scales) {
  for (size_t i = 0; i < size; i += kCacheBlock, ++scales) {
    const size_t count = size - i < kCacheBlock ? size - i : kCacheBlock;
    float block[kCacheBlock] = {};
    int8_t quantised[kCacheBlock];
    __builtin_memcpy(block, values + i, count * sizeof(float));
    const BlockScale scale = block_scale(block, kCacheBlock);
    for (size_t j = 0; j < kCacheBlock; j += 16) quantise_16(block + j, scale.inverse, quantised + j);
    __builtin_memcpy(to + i, quantised, count);
    to_f16(&scale.scale, 1, scales);
  }
}

inline uint32_t larger(uint32_t a, uint32_t b) {
  return a > b ? a : b;
}
inline uint32_t smaller(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

}  // namespace
}  // namespace shoal::engine::cpu
