// Sixteen lanes as one 512-bit register; see portable/lanes.h for what each operation means.
#pragma once

#include <immintrin.h>

#include "engine/cpu/kernel_table.h"

namespace shoal::engine::cpu {
namespace {

struct F32x16 {
  __m512 lanes;
};
struct I32x16 {
  __m512i lanes;
};
struct U8x64 {
  __m512i lanes;
};

constexpr Isa kIsa = Isa::avx512;
constexpr uint32_t kTileRows = 6;
constexpr uint32_t kTilePanels = 2;
constexpr uint32_t kFloatPanels = 4;
constexpr int kScoreGroups = 4;  // groups of 16 tokens scored at once for few queries
constexpr int kMixQueries = 4;   // queries whose values are mixed at once, at most 4
constexpr int kUnroll = 8;       // loops over the rows of a tile, whose sums live in registers
constexpr bool kByteWeightsAreOffset = true;

inline __mmask16 first_lanes(uint32_t count) {
  return static_cast<__mmask16>((1u << count) - 1u);
}

inline F32x16 zero_f32() {
  return {_mm512_setzero_ps()};
}
inline I32x16 zero_i32() {
  return {_mm512_setzero_si512()};
}
inline F32x16 broadcast(float value) {
  return {_mm512_set1_ps(value)};
}
inline I32x16 broadcast(int32_t value) {
  return {_mm512_set1_epi32(value)};
}
inline F32x16 load(const float* from) {
  return {_mm512_loadu_ps(from)};
}
inline void store(float* to, F32x16 value) {
  _mm512_storeu_ps(to, value.lanes);
}
inline F32x16 load_partial(const float* from, uint32_t count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), from)};
}
inline void store_partial(float* to, F32x16 value, uint32_t count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), value.lanes);
}
inline float first_lane(F32x16 value) {
  return _mm512_cvtss_f32(value.lanes);
}

inline F32x16 add(F32x16 a, F32x16 b) {
  return {_mm512_add_ps(a.lanes, b.lanes)};
}
inline F32x16 subtract(F32x16 a, F32x16 b) {
  return {_mm512_sub_ps(a.lanes, b.lanes)};
}
inline F32x16 multiply(F32x16 a, F32x16 b) {
  return {_mm512_mul_ps(a.lanes, b.lanes)};
}
inline F32x16 divide(F32x16 a, F32x16 b) {
  return {_mm512_div_ps(a.lanes, b.lanes)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_fmadd_ps(a.lanes, b.lanes, c.lanes)};
}
inline F32x16 negative_fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_fnmadd_ps(a.lanes, b.lanes, c.lanes)};
}
inline F32x16 maximum(F32x16 a, F32x16 b) {
  return {_mm512_max_ps(a.lanes, b.lanes)};
}
inline F32x16 minimum(F32x16 a, F32x16 b) {
  return {_mm512_min_ps(a.lanes, b.lanes)};
}
inline F32x16 select_range(uint32_t begin, uint32_t end, F32x16 value, F32x16 other) {
  auto mask = static_cast<__mmask16>(first_lanes(end) & ~first_lanes(begin));
  return {_mm512_mask_mov_ps(other.lanes, mask, value.lanes)};
}
inline F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 value) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.lanes, b.lanes, _CMP_NLT_UQ), value.lanes)};
}
inline float fold_add(F32x16 value) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(value.lanes), _mm512_extractf32x8_ps(value.lanes, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float fold_maximum(F32x16 value) {
  __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(value.lanes), _mm512_extractf32x8_ps(value.lanes, 1));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

inline I32x16 bits(F32x16 value) {
  return {_mm512_castps_si512(value.lanes)};
}
inline F32x16 from_bits(I32x16 value) {
  return {_mm512_castsi512_ps(value.lanes)};
}
inline I32x16 add(I32x16 a, I32x16 b) {
  return {_mm512_add_epi32(a.lanes, b.lanes)};
}
inline I32x16 multiply(I32x16 a, I32x16 b) {
  return {_mm512_mullo_epi32(a.lanes, b.lanes)};
}
inline I32x16 bit_and(I32x16 a, I32x16 b) {
  return {_mm512_and_si512(a.lanes, b.lanes)};
}
inline I32x16 maximum(I32x16 a, I32x16 b) {
  return {_mm512_max_epi32(a.lanes, b.lanes)};
}
template <int count>
inline I32x16 shift_left(I32x16 value) {
  return {_mm512_slli_epi32(value.lanes, count)};
}
template <int count>
inline I32x16 shift_right_arithmetic(I32x16 value) {
  return {_mm512_srai_epi32(value.lanes, count)};
}
inline F32x16 to_f32(I32x16 value) {
  return {_mm512_cvtepi32_ps(value.lanes)};
}
inline I32x16 round_to_i32(F32x16 value) {
  __m512 shifted = _mm512_add_ps(value.lanes, _mm512_set1_ps(12582912.0f));
  return {_mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(0x4b400000))};
}
inline int32_t fold_add(I32x16 value) {
  return _mm512_reduce_add_epi32(value.lanes);
}
inline int32_t fold_maximum(I32x16 value) {
  return _mm512_reduce_max_epi32(value.lanes);
}
inline void store_low_bytes(int8_t* to, I32x16 value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(value.lanes));
}

inline __m128i load_128(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
inline __m256i load_256(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
inline F32x16 load_f16(const uint8_t* from) {
  return {_mm512_cvtph_ps(load_256(from))};
}
inline F32x16 load_bf16(const uint8_t* from) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(from)), 16))};
}
inline void store_f16(uint16_t* to, F32x16 value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(value.lanes, _MM_FROUND_TO_NEAREST_INT));
}
inline F32x16 load_f8(const uint8_t* from) {
  __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(load_128(from)), 8);
  halves = _mm256_and_si256(_mm256_srai_epi16(halves, 1), _mm256_set1_epi16(static_cast<short>(0xbf80)));
  return {_mm512_cvtph_ps(halves)};
}
inline I32x16 load_words(const uint8_t* from) {
  return {_mm512_loadu_si512(from)};
}
inline void store_words(uint8_t* to, I32x16 value) {
  _mm512_storeu_si512(to, value.lanes);
}
inline F32x16 fp4_low(I32x16 words) {
  const __m512 values = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f,
                                       -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
  return {_mm512_permutexvar_ps(words.lanes, values)};
}
inline I32x16 load_u8(const uint8_t* from) {
  return {_mm512_cvtepu8_epi32(load_128(from))};
}
inline I32x16 load_u8_pairs(const uint8_t* from) {
  return {_mm512_cvtepu8_epi16(load_256(from))};
}
inline I32x16 load_i8(const uint8_t* from) {
  return {_mm512_cvtepi8_epi32(load_128(from))};
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
  return {_mm512_loadu_si512(from)};
}
inline void store_bytes(uint8_t* to, U8x64 value) {
  _mm512_storeu_si512(to, value.lanes);
}
inline U8x64 byte_weights(const uint8_t* from) {
  return load_bytes(from);
}
inline U8x64 low_nibbles(U8x64 value) {
  return {_mm512_and_si512(value.lanes, _mm512_set1_epi8(15))};
}
inline U8x64 high_nibbles(U8x64 value) {
  return {_mm512_and_si512(_mm512_srli_epi16(value.lanes, 4), _mm512_set1_epi8(15))};
}
template <int shift>
inline U8x64 join_high_bits(U8x64 low, U8x64 high) {
  __m512i moved = high.lanes;
  if constexpr (shift < 4) moved = _mm512_slli_epi16(moved, 4 - shift);
  if constexpr (shift > 4) moved = _mm512_srli_epi16(moved, shift - 4);
  return {_mm512_ternarylogic_epi32(low.lanes, moved, _mm512_set1_epi8(0x30), 0xf8)};  // low | (moved & 0x30)
}
template <int shift>
inline U8x64 two_bits(U8x64 value) {
  return {_mm512_and_si512(_mm512_srli_epi16(value.lanes, shift), _mm512_set1_epi8(3))};
}
template <int from, int to>
inline U8x64 join_bit(U8x64 low, U8x64 high) {
  __m512i moved = high.lanes;
  if constexpr (from < to) moved = _mm512_slli_epi16(moved, to - from);
  if constexpr (from > to) moved = _mm512_srli_epi16(moved, from - to);
  return {
      _mm512_ternarylogic_epi32(low.lanes, moved, _mm512_set1_epi8(1 << to), 0xf8)};  // low | (moved & bit)
}
inline U8x64 look_up(const uint8_t (&table)[16], U8x64 indices) {
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_128(table)), indices.lanes)};
}
inline I32x16 dot_small(I32x16 sum, U8x64 weights, int32_t activations) {
  return {_mm512_dpbusd_epi32(sum.lanes, weights.lanes, _mm512_set1_epi32(activations))};
}
inline I32x16 dot_bytes(I32x16 sum, U8x64 weights, int32_t activations) {
  return dot_small(sum, weights, activations);
}
inline I32x16 dot_pairs(I32x16 sum, I32x16 a, int32_t b) {
  return {_mm512_dpwssd_epi32(sum.lanes, a.lanes, _mm512_set1_epi32(b))};
}
inline void settle(I32x16& value) {
  asm volatile("" : "+v"(value.lanes));
}

}  // namespace
}  // namespace shoal::engine::cpu
