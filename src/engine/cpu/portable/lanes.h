// Sixteen lanes as plain arrays: the meaning of every lane operation. The other instruction sets' lanes.h
// offer the same names and give the same bits; the kernels over them (sixteen_lanes/*.h) are written once.
#pragma once

#include "engine/cpu/kernel_table.h"
#include "formats/half.h"

namespace shoal::engine::cpu {
namespace {

struct F32x16 {
  float lane[16];
};
struct I32x16 {
  int32_t lane[16];
};
struct U8x64 {  // 16 lanes of four bytes
  uint8_t byte[64];
};

constexpr Isa kIsa = Isa::portable;
constexpr uint32_t kTileRows = 2;
constexpr uint32_t kTilePanels = 1;
constexpr uint32_t kFloatPanels = 1;  // panels a float product with few rows walks at once
constexpr int kScoreGroups = 1;       // groups of 16 tokens scored at once for few queries
constexpr int kMixQueries = 2;        // queries whose values are mixed at once, at most 4
constexpr int kUnroll = 1;
constexpr bool kByteWeightsAreOffset = true;  // dot() of byte_weights() counts 128 too much per weight

inline F32x16 zero_f32() {
  return {};
}
inline I32x16 zero_i32() {
  return {};
}

template <class Function>
inline F32x16 each_f32(Function function) {
  F32x16 result;
  for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
  return result;
}
template <class Function>
inline I32x16 each_i32(Function function) {
  I32x16 result;
  for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
  return result;
}

inline F32x16 broadcast(float value) {
  return each_f32([&](int) { return value; });
}
inline I32x16 broadcast(int32_t value) {
  return each_i32([&](int) { return value; });
}
inline F32x16 load(const float* from) {
  F32x16 result;
  __builtin_memcpy(&result, from, sizeof(result));
  return result;
}
inline void store(float* to, const F32x16& value) {
  __builtin_memcpy(to, &value, sizeof(value));
}
// The first `count` <= 16 lanes; the others are 0.
inline F32x16 load_partial(const float* from, uint32_t count) {
  F32x16 result = {};
  __builtin_memcpy(&result, from, count * sizeof(float));
  return result;
}
inline void store_partial(float* to, const F32x16& value, uint32_t count) {
  __builtin_memcpy(to, &value, count * sizeof(float));
}
inline float first_lane(const F32x16& value) {
  return value.lane[0];
}

inline F32x16 add(const F32x16& a, const F32x16& b) {
  return each_f32([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline F32x16 subtract(const F32x16& a, const F32x16& b) {
  return each_f32([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline F32x16 multiply(const F32x16& a, const F32x16& b) {
  return each_f32([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline F32x16 divide(const F32x16& a, const F32x16& b) {
  return each_f32([&](int i) { return a.lane[i] / b.lane[i]; });
}
// a * b + c and c - a * b, rounded once.
inline F32x16 fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return each_f32([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
inline F32x16 negative_fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return each_f32([&](int i) { return __builtin_fmaf(-a.lane[i], b.lane[i], c.lane[i]); });
}
// b where either is NaN, as x86 has it.
inline F32x16 maximum(const F32x16& a, const F32x16& b) {
  return each_f32([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline F32x16 minimum(const F32x16& a, const F32x16& b) {
  return each_f32([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
// `value` where lane index is in [begin, end), else `other`.
inline F32x16 select_range(uint32_t begin, uint32_t end, const F32x16& value, const F32x16& other) {
  return each_f32([&](int i) {
    return static_cast<uint32_t>(i) >= begin && static_cast<uint32_t>(i) < end ? value.lane[i]
                                                                               : other.lane[i];
  });
}
// `value` where a < b, else 0.
inline F32x16 zero_where_less(const F32x16& a, const F32x16& b, const F32x16& value) {
  return each_f32([&](int i) { return a.lane[i] < b.lane[i] ? 0.0f : value.lane[i]; });
}
// The fixed tree: lane i with lane i + 8, then + 4, + 2, + 1.
inline float fold_add(F32x16 value) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) value.lane[i] = value.lane[i] + value.lane[i + half];
  }
  return value.lane[0];
}
inline float fold_maximum(F32x16 value) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      value.lane[i] = value.lane[i] > value.lane[i + half] ? value.lane[i] : value.lane[i + half];
    }
  }
  return value.lane[0];
}

inline I32x16 bits(const F32x16& value) {
  I32x16 result;
  __builtin_memcpy(&result, &value, sizeof(result));
  return result;
}
inline F32x16 from_bits(const I32x16& value) {
  F32x16 result;
  __builtin_memcpy(&result, &value, sizeof(result));
  return result;
}
inline I32x16 add(const I32x16& a, const I32x16& b) {
  return each_i32([&](int i) {
    return static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) + static_cast<uint32_t>(b.lane[i]));
  });
}
inline I32x16 multiply(const I32x16& a, const I32x16& b) {
  return each_i32([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline I32x16 bit_and(const I32x16& a, const I32x16& b) {
  return each_i32([&](int i) { return a.lane[i] & b.lane[i]; });
}
inline I32x16 maximum(const I32x16& a, const I32x16& b) {
  return each_i32([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
template <int count>
inline I32x16 shift_left(const I32x16& value) {
  return each_i32([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(value.lane[i]) << count); });
}
template <int count>
inline I32x16 shift_right_arithmetic(const I32x16& value) {
  return each_i32([&](int i) { return value.lane[i] >> count; });
}
inline F32x16 to_f32(const I32x16& value) {
  return each_f32([&](int i) { return static_cast<float>(value.lane[i]); });
}
// To the nearest integer, ties to even; |value| < 2^22.
inline I32x16 round_to_i32(const F32x16& value) {
  return each_i32([&](int i) {
    float shifted = value.lane[i] + 12582912.0f;
    int32_t raw;
    __builtin_memcpy(&raw, &shifted, sizeof(raw));
    return raw - 0x4b400000;
  });
}
inline int32_t fold_add(const I32x16& value) {
  int32_t sum = 0;
  for (int32_t lane : value.lane) sum += lane;
  return sum;
}
inline int32_t fold_maximum(const I32x16& value) {
  int32_t result = value.lane[0];
  for (int32_t lane : value.lane) result = lane > result ? lane : result;
  return result;
}
// The low byte of each lane.
inline void store_low_bytes(int8_t* to, const I32x16& value) {
  for (int i = 0; i < 16; ++i) to[i] = static_cast<int8_t>(value.lane[i]);
}

inline F32x16 load_f16(const uint8_t* from) {
  uint16_t raw[16];
  __builtin_memcpy(raw, from, sizeof(raw));
  return each_f32([&](int i) { return formats::f16_to_f32(raw[i]); });
}
inline F32x16 load_bf16(const uint8_t* from) {
  uint16_t raw[16];
  __builtin_memcpy(raw, from, sizeof(raw));
  return each_f32([&](int i) { return formats::bf16_to_f32(raw[i]); });
}
inline void store_f16(uint16_t* to, const F32x16& value) {
  for (int i = 0; i < 16; ++i) to[i] = formats::f32_to_f16(value.lane[i]);
}
// Sixteen bytes of FP8 E4M3 that are not NaN, each 2^-8 of its value: an f16 with another exponent.
inline F32x16 load_f8(const uint8_t* from) {
  return each_f32([&](int i) {
    return formats::f16_to_f32(static_cast<uint16_t>((from[i] & 0x80) << 8 | (from[i] & 0x7f) << 7));
  });
}
inline I32x16 load_words(const uint8_t* from) {
  I32x16 result;
  __builtin_memcpy(&result, from, sizeof(result));
  return result;
}
inline void store_words(uint8_t* to, const I32x16& value) {
  __builtin_memcpy(to, &value, sizeof(value));
}
// The E2M1 in the lowest four bits of each lane.
inline F32x16 fp4_low(const I32x16& words) {
  constexpr float kValues[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                 -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  return each_f32([&](int i) { return kValues[words.lane[i] & 15]; });
}
inline I32x16 load_u8(const uint8_t* from) {
  return each_i32([&](int i) { return int32_t{from[i]}; });
}
// Two int16 a lane, from 32 bytes.
inline I32x16 load_u8_pairs(const uint8_t* from) {
  return each_i32([&](int i) { return int32_t{from[2 * i]} | int32_t{from[2 * i + 1]} << 16; });
}
inline I32x16 load_i8(const uint8_t* from) {
  return each_i32([&](int i) { return int32_t{static_cast<int8_t>(from[i])}; });
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

inline U8x64 load_bytes(const uint8_t* from) {
  U8x64 result;
  __builtin_memcpy(&result, from, sizeof(result));
  return result;
}
// What load_bytes() gives back.
inline void store_bytes(uint8_t* to, const U8x64& value) {
  __builtin_memcpy(to, &value, sizeof(value));
}
// Weights stored as value + 128, in the form that dot_bytes() takes.
inline U8x64 byte_weights(const uint8_t* from) {
  return load_bytes(from);
}
inline U8x64 low_nibbles(U8x64 value) {
  for (uint8_t& byte : value.byte) byte &= 15;
  return value;
}
inline U8x64 high_nibbles(U8x64 value) {
  for (uint8_t& byte : value.byte) byte >>= 4;
  return value;
}
// Bits [shift, shift + 2) of each byte, moved to bits 4 and 5, joined with `low`.
template <int shift>
inline U8x64 join_high_bits(U8x64 low, const U8x64& high) {
  for (int i = 0; i < 64; ++i)
    low.byte[i] = static_cast<uint8_t>(low.byte[i] | ((high.byte[i] >> shift) & 3) << 4);
  return low;
}
// Bits [shift, shift + 2) of each byte.
template <int shift>
inline U8x64 two_bits(U8x64 value) {
  for (uint8_t& byte : value.byte) byte = byte >> shift & 3;
  return value;
}
// Bit `from` of each byte, moved to bit `to`, joined with `low`.
template <int from, int to>
inline U8x64 join_bit(U8x64 low, const U8x64& high) {
  for (int i = 0; i < 64; ++i)
    low.byte[i] = static_cast<uint8_t>(low.byte[i] | (high.byte[i] >> from & 1) << to);
  return low;
}
// table[i] for each byte i < 16.
inline U8x64 look_up(const uint8_t (&table)[16], U8x64 indices) {
  for (uint8_t& byte : indices.byte) byte = table[byte];
  return indices;
}
// Per lane: sum + the dot product of the lane's four unsigned weights (< 128) with the four int8 in
// `activations`.
inline I32x16 dot_small(const I32x16& sum, const U8x64& weights, int32_t activations) {
  int8_t a[4];
  __builtin_memcpy(a, &activations, sizeof(a));
  return each_i32([&](int i) {
    const uint8_t* w = weights.byte + 4 * i;
    return sum.lane[i] + w[0] * a[0] + w[1] * a[1] + w[2] * a[2] + w[3] * a[3];
  });
}
// The same for weights from byte_weights().
inline I32x16 dot_bytes(const I32x16& sum, const U8x64& weights, int32_t activations) {
  return dot_small(sum, weights, activations);
}
// Per lane: sum + the product of the low int16 of `a` and `b` + that of the high ones.
inline I32x16 dot_pairs(const I32x16& sum, const I32x16& a, int32_t b) {
  int32_t low = static_cast<int16_t>(b), high = b >> 16;
  return each_i32(
      [&](int i) { return sum.lane[i] + static_cast<int16_t>(a.lane[i]) * low + (a.lane[i] >> 16) * high; });
}
// Has the value computed here: compilers mix unrolled blocks otherwise, and run out of registers.
inline void settle(const I32x16&) {}

}  // namespace
}  // namespace shoal::engine::cpu
