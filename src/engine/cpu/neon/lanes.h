// Sixteen lanes as four 128-bit registers of AArch64; see portable/lanes.h for what each operation means. The
// dot products of bytes are in dots_base.h, dots_dotprod.h and dots_i8mm.h, each of which includes this file.
#pragma once

#include <arm_neon.h>

#include "engine/cpu/kernel_table.h"

namespace shoal::engine::cpu {
namespace {

struct F32x16 {
  float32x4_t part[4];
};
struct I32x16 {
  int32x4_t part[4];
};
struct U8x64 {
  uint8x16_t part[4];
};

constexpr Isa kIsa = Isa::neon;
constexpr uint32_t kTileRows = 4;  // of 32 registers, a row of sums takes four
constexpr uint32_t kTilePanels = 1;
constexpr uint32_t kFloatPanels = 2;
constexpr int kScoreGroups = 2;  // groups of 16 tokens scored at once for few queries
constexpr int kMixQueries = 2;   // queries whose values are mixed at once, at most 4
constexpr int kUnroll = 8;

// One register after the other; no loop, so that none of them ever lies in memory.
template <class Function>
[[gnu::always_inline]] inline F32x16 each_f32(Function function) {
  return {{function(0), function(1), function(2), function(3)}};
}
template <class Function>
[[gnu::always_inline]] inline I32x16 each_i32(Function function) {
  return {{function(0), function(1), function(2), function(3)}};
}
template <class Function>
[[gnu::always_inline]] inline U8x64 each_u8(Function function) {
  return {{function(0), function(1), function(2), function(3)}};
}

inline F32x16 broadcast(float value) {
  return each_f32([&](int) { return vdupq_n_f32(value); });
}
inline I32x16 broadcast(int32_t value) {
  return each_i32([&](int) { return vdupq_n_s32(value); });
}
inline F32x16 zero_f32() {
  return broadcast(0.0f);
}
inline I32x16 zero_i32() {
  return broadcast(int32_t{0});
}
inline F32x16 load(const float* from) {
  return each_f32([&](int i) { return vld1q_f32(from + 4 * i); });
}
inline void store(float* to, F32x16 value) {
  vst1q_f32(to, value.part[0]);
  vst1q_f32(to + 4, value.part[1]);
  vst1q_f32(to + 8, value.part[2]);
  vst1q_f32(to + 12, value.part[3]);
}
inline F32x16 load_partial(const float* from, uint32_t count) {
  float lanes[16] = {};
  __builtin_memcpy(lanes, from, count * sizeof(float));
  return load(lanes);
}
inline void store_partial(float* to, F32x16 value, uint32_t count) {
  float lanes[16];
  store(lanes, value);
  __builtin_memcpy(to, lanes, count * sizeof(float));
}
inline float first_lane(F32x16 value) {
  return vgetq_lane_f32(value.part[0], 0);
}

inline F32x16 add(F32x16 a, F32x16 b) {
  return each_f32([&](int i) { return vaddq_f32(a.part[i], b.part[i]); });
}
inline F32x16 subtract(F32x16 a, F32x16 b) {
  return each_f32([&](int i) { return vsubq_f32(a.part[i], b.part[i]); });
}
inline F32x16 multiply(F32x16 a, F32x16 b) {
  return each_f32([&](int i) { return vmulq_f32(a.part[i], b.part[i]); });
}
inline F32x16 divide(F32x16 a, F32x16 b) {
  return each_f32([&](int i) { return vdivq_f32(a.part[i], b.part[i]); });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each_f32([&](int i) { return vfmaq_f32(c.part[i], a.part[i], b.part[i]); });
}
inline F32x16 negative_fma(F32x16 a, F32x16 b, F32x16 c) {
  return each_f32([&](int i) { return vfmsq_f32(c.part[i], a.part[i], b.part[i]); });
}
// Not fmax and fmin, which order zeros and let a NaN in either operand win.
inline float32x4_t larger_of(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}
inline F32x16 maximum(F32x16 a, F32x16 b) {
  return each_f32([&](int i) { return larger_of(a.part[i], b.part[i]); });
}
inline F32x16 minimum(F32x16 a, F32x16 b) {
  return each_f32([&](int i) { return vbslq_f32(vcltq_f32(a.part[i], b.part[i]), a.part[i], b.part[i]); });
}
inline F32x16 select_range(uint32_t begin, uint32_t end, F32x16 value, F32x16 other) {
  const uint32_t indices[4] = {0, 1, 2, 3};
  const uint32x4_t first = vld1q_u32(indices);
  return each_f32([&](int i) {
    uint32x4_t lane = vaddq_u32(first, vdupq_n_u32(4 * static_cast<uint32_t>(i)));
    uint32x4_t inside = vandq_u32(vcgeq_u32(lane, vdupq_n_u32(begin)), vcltq_u32(lane, vdupq_n_u32(end)));
    return vbslq_f32(inside, value.part[i], other.part[i]);
  });
}
inline F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 value) {
  return each_f32([&](int i) {
    uint32x4_t kept = vbicq_u32(vreinterpretq_u32_f32(value.part[i]), vcltq_f32(a.part[i], b.part[i]));
    return vreinterpretq_f32_u32(kept);
  });
}
inline float fold_add(F32x16 value) {
  float32x4_t four =
      vaddq_f32(vaddq_f32(value.part[0], value.part[2]), vaddq_f32(value.part[1], value.part[3]));
  float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float fold_maximum(F32x16 value) {
  float32x4_t four =
      larger_of(larger_of(value.part[0], value.part[2]), larger_of(value.part[1], value.part[3]));
  float32x4_t two = larger_of(four, vextq_f32(four, four, 2));
  return vgetq_lane_f32(larger_of(two, vextq_f32(two, two, 1)), 0);
}

inline I32x16 bits(F32x16 value) {
  return each_i32([&](int i) { return vreinterpretq_s32_f32(value.part[i]); });
}
inline F32x16 from_bits(I32x16 value) {
  return each_f32([&](int i) { return vreinterpretq_f32_s32(value.part[i]); });
}
inline I32x16 add(I32x16 a, I32x16 b) {
  return each_i32([&](int i) { return vaddq_s32(a.part[i], b.part[i]); });
}
inline I32x16 multiply(I32x16 a, I32x16 b) {
  return each_i32([&](int i) { return vmulq_s32(a.part[i], b.part[i]); });
}
inline I32x16 bit_and(I32x16 a, I32x16 b) {
  return each_i32([&](int i) { return vandq_s32(a.part[i], b.part[i]); });
}
inline I32x16 maximum(I32x16 a, I32x16 b) {
  return each_i32([&](int i) { return vmaxq_s32(a.part[i], b.part[i]); });
}
template <int count>
inline I32x16 shift_left(I32x16 value) {
  return each_i32([&](int i) { return vshlq_n_s32(value.part[i], count); });
}
template <int count>
inline I32x16 shift_right_arithmetic(I32x16 value) {
  if constexpr (count == 0) return value;
  return each_i32([&](int i) { return vshrq_n_s32(value.part[i], count == 0 ? 1 : count); });
}
inline F32x16 to_f32(I32x16 value) {
  return each_f32([&](int i) { return vcvtq_f32_s32(value.part[i]); });
}
inline I32x16 round_to_i32(F32x16 value) {
  return add(bits(add(value, broadcast(12582912.0f))), broadcast(int32_t{-0x4b400000}));
}
inline int32_t fold_add(I32x16 value) {
  return vaddvq_s32(
      vaddq_s32(vaddq_s32(value.part[0], value.part[1]), vaddq_s32(value.part[2], value.part[3])));
}
inline int32_t fold_maximum(I32x16 value) {
  return vmaxvq_s32(
      vmaxq_s32(vmaxq_s32(value.part[0], value.part[1]), vmaxq_s32(value.part[2], value.part[3])));
}
inline void store_low_bytes(int8_t* to, I32x16 value) {
  int16x8_t low = vcombine_s16(vmovn_s32(value.part[0]), vmovn_s32(value.part[1]));
  int16x8_t high = vcombine_s16(vmovn_s32(value.part[2]), vmovn_s32(value.part[3]));
  vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

// Four of the f16 in `bits`.
inline float32x4_t widen_f16(uint16x4_t bits) {
  return vcvt_f32_f16(vreinterpret_f16_u16(bits));
}
inline uint16x4_t load_u16(const uint8_t* from) {
  return vreinterpret_u16_u8(vld1_u8(from));
}
inline F32x16 load_f16(const uint8_t* from) {
  return each_f32([&](int i) { return widen_f16(load_u16(from + 8 * i)); });
}
inline F32x16 load_bf16(const uint8_t* from) {
  return each_f32([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(load_u16(from + 8 * i), 16)); });
}
inline void store_f16(uint16_t* to, F32x16 value) {
  vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(value.part[0])));
  vst1_u16(to + 4, vreinterpret_u16_f16(vcvt_f16_f32(value.part[1])));
  vst1_u16(to + 8, vreinterpret_u16_f16(vcvt_f16_f32(value.part[2])));
  vst1_u16(to + 12, vreinterpret_u16_f16(vcvt_f16_f32(value.part[3])));
}
inline F32x16 load_f8(const uint8_t* from) {
  const uint8x16_t bytes = vld1q_u8(from);
  auto halves = [](uint8x8_t eight) {  // as f16
    int16x8_t moved = vshrq_n_s16(vreinterpretq_s16_u16(vshll_n_u8(eight, 8)), 1);
    return vandq_u16(vreinterpretq_u16_s16(moved), vdupq_n_u16(0xbf80));
  };
  const uint16x8_t low = halves(vget_low_u8(bytes)), high = halves(vget_high_u8(bytes));
  return {{widen_f16(vget_low_u16(low)), widen_f16(vget_high_u16(low)), widen_f16(vget_low_u16(high)),
           widen_f16(vget_high_u16(high))}};
}
inline U8x64 load_bytes(const uint8_t* from) {
  return each_u8([&](int i) { return vld1q_u8(from + 16 * i); });
}
inline void store_bytes(uint8_t* to, U8x64 value) {
  vst1q_u8(to, value.part[0]);
  vst1q_u8(to + 16, value.part[1]);
  vst1q_u8(to + 32, value.part[2]);
  vst1q_u8(to + 48, value.part[3]);
}
inline I32x16 load_words(const uint8_t* from) {
  return each_i32([&](int i) { return vreinterpretq_s32_u8(vld1q_u8(from + 16 * i)); });
}
inline void store_words(uint8_t* to, I32x16 value) {
  vst1q_u8(to, vreinterpretq_u8_s32(value.part[0]));
  vst1q_u8(to + 16, vreinterpretq_u8_s32(value.part[1]));
  vst1q_u8(to + 32, vreinterpretq_u8_s32(value.part[2]));
  vst1q_u8(to + 48, vreinterpretq_u8_s32(value.part[3]));
}
inline F32x16 fp4_low(I32x16 words) {
  // The upper two bytes of each value: the lower of them first, for all sixteen, then the upper.
  alignas(16) static constexpr uint8_t kBytes[32] = {
      0x00, 0x00, 0x80, 0xc0, 0x00, 0x40, 0x80, 0xc0, 0x00, 0x00, 0x80, 0xc0, 0x00, 0x40, 0x80, 0xc0,
      0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0};
  const uint8x16x2_t table = {{vld1q_u8(kBytes), vld1q_u8(kBytes + 16)}};
  return each_f32([&](int i) {
    uint32x4_t code = vandq_u32(vreinterpretq_u32_s32(words.part[i]), vdupq_n_u32(15));
    // Table indices of a lane's bytes: none, none, code, code + 16.
    uint32x4_t indices = vorrq_u32(vmulq_u32(code, vdupq_n_u32(0x01010000)), vdupq_n_u32(0x1000ffff));
    return vreinterpretq_f32_u8(vqtbl2q_u8(table, vreinterpretq_u8_u32(indices)));
  });
}
inline I32x16 load_u8(const uint8_t* from) {
  const uint8x16_t bytes = vld1q_u8(from);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
           vreinterpretq_s32_u32(vmovl_high_u16(high))}};
}
inline I32x16 load_u8_pairs(const uint8_t* from) {
  return each_i32([&](int i) { return vreinterpretq_s32_u16(vmovl_u8(vld1_u8(from + 8 * i))); });
}
inline I32x16 load_i8(const uint8_t* from) {
  const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(from));
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  return {{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
           vmovl_high_s16(high)}};
}
inline int32_t load_word(const uint8_t* from) {
  int32_t word;
  __builtin_memcpy(&word, from, sizeof(word));
  return word;
}
inline float load_float(const uint8_t* from) {
  float value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

inline U8x64 low_nibbles(U8x64 value) {
  return each_u8([&](int i) { return vandq_u8(value.part[i], vdupq_n_u8(15)); });
}
inline U8x64 high_nibbles(U8x64 value) {
  return each_u8([&](int i) { return vshrq_n_u8(value.part[i], 4); });
}
// `count` bits up, or -count down.
template <int count>
inline uint8x16_t move_bits(uint8x16_t bytes) {
  if constexpr (count > 0) return vshlq_n_u8(bytes, count);
  if constexpr (count < 0) return vshrq_n_u8(bytes, -count);
  if constexpr (count == 0) return bytes;
}
template <int shift>
inline U8x64 join_high_bits(U8x64 low, U8x64 high) {
  return each_u8([&](int i) {
    return vorrq_u8(low.part[i], vandq_u8(move_bits<4 - shift>(high.part[i]), vdupq_n_u8(0x30)));
  });
}
template <int shift>
inline U8x64 two_bits(U8x64 value) {
  return each_u8([&](int i) { return vandq_u8(move_bits<-shift>(value.part[i]), vdupq_n_u8(3)); });
}
template <int from, int to>
inline U8x64 join_bit(U8x64 low, U8x64 high) {
  return each_u8([&](int i) {
    return vorrq_u8(low.part[i], vandq_u8(move_bits<to - from>(high.part[i]), vdupq_n_u8(1 << to)));
  });
}
inline U8x64 look_up(const uint8_t (&table)[16], U8x64 indices) {
  const uint8x16_t values = vld1q_u8(table);
  return each_u8([&](int i) { return vqtbl1q_u8(values, indices.part[i]); });
}

// Per lane, the product of its low int16 and that of `pair` + that of the high ones, added to `sum`.
inline int32x4_t add_pairs(int32x4_t sum, int16x8_t a, int16x8_t pair) {
  int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(pair)), high = vmull_high_s16(a, pair);
  return vaddq_s32(sum, vpaddq_s32(low, high));
}
inline I32x16 dot_pairs(I32x16 sum, I32x16 a, int32_t b) {
  const int16x8_t pair = vreinterpretq_s16_s32(vdupq_n_s32(b));
  return each_i32([&](int i) { return add_pairs(sum.part[i], vreinterpretq_s16_s32(a.part[i]), pair); });
}
inline I32x16 dot_pairs(I32x16 sum, const uint8_t* a, int32_t b) {
  const int16x8_t pair = vreinterpretq_s16_s32(vdupq_n_s32(b));
  return each_i32([&](int i) {
    return add_pairs(sum.part[i], vreinterpretq_s16_u16(vmovl_u8(vld1_u8(a + 8 * i))), pair);
  });
}
// Has the value computed here, see portable/lanes.h.
inline void settle(I32x16& value) {
  asm volatile("" : "+w"(value.part[0]), "+w"(value.part[1]), "+w"(value.part[2]), "+w"(value.part[3]));
}

}  // namespace
}  // namespace shoal::engine::cpu
