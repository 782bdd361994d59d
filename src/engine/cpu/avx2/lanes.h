// Sixteen lanes as two 256-bit registers; see portable/lanes.h for what each operation means.
#pragma once

#include <immintrin.h>

#include "engine/cpu/kernel_table.h"

namespace shoal::engine::cpu {
namespace {

struct F32x16 {
  __m256 low, high;
};
struct I32x16 {
  __m256i low, high;
};
struct U8x64 {
  __m256i low, high;
};

constexpr Isa kIsa = Isa::avx2;
constexpr uint32_t kTileRows = 4;
constexpr uint32_t kTilePanels = 1;
constexpr uint32_t kFloatPanels = 2;
constexpr int kScoreGroups = 2;  // groups of 16 tokens scored at once for few queries
constexpr int kMixQueries = 2;   // queries whose values are mixed at once, at most 4
constexpr int kUnroll = 8;

inline F32x16 zero_f32() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
inline I32x16 zero_i32() {
  return {_mm256_setzero_si256(), _mm256_setzero_si256()};
}
inline F32x16 broadcast(float value) {
  return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
}
inline I32x16 broadcast(int32_t value) {
  return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
}
inline F32x16 load(const float* from) {
  return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
inline void store(float* to, F32x16 value) {
  _mm256_storeu_ps(to, value.low);
  _mm256_storeu_ps(to + 8, value.high);
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
  return _mm256_cvtss_f32(value.low);
}

inline F32x16 add(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline F32x16 subtract(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline F32x16 multiply(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline F32x16 divide(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline F32x16 negative_fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
inline F32x16 maximum(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline F32x16 minimum(F32x16 a, F32x16 b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
inline F32x16 select_range(uint32_t begin, uint32_t end, F32x16 value, F32x16 other) {
  // begin - 1 < lane and lane < end, in signed arithmetic.
  __m256i after = _mm256_set1_epi32(static_cast<int>(begin) - 1),
          before = _mm256_set1_epi32(static_cast<int>(end));
  __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
  __m256i low_mask = _mm256_and_si256(_mm256_cmpgt_epi32(low, after), _mm256_cmpgt_epi32(before, low));
  __m256i high_mask = _mm256_and_si256(_mm256_cmpgt_epi32(high, after), _mm256_cmpgt_epi32(before, high));
  return {_mm256_blendv_ps(other.low, value.low, _mm256_castsi256_ps(low_mask)),
          _mm256_blendv_ps(other.high, value.high, _mm256_castsi256_ps(high_mask))};
}
inline F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 value) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.low, b.low, _CMP_NLT_UQ), value.low),
          _mm256_and_ps(_mm256_cmp_ps(a.high, b.high, _CMP_NLT_UQ), value.high)};
}
inline float fold_add(F32x16 value) {
  __m256 eight = _mm256_add_ps(value.low, value.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float fold_maximum(F32x16 value) {
  __m256 eight = _mm256_max_ps(value.low, value.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

inline I32x16 bits(F32x16 value) {
  return {_mm256_castps_si256(value.low), _mm256_castps_si256(value.high)};
}
inline F32x16 from_bits(I32x16 value) {
  return {_mm256_castsi256_ps(value.low), _mm256_castsi256_ps(value.high)};
}
inline I32x16 add(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
inline I32x16 multiply(I32x16 a, I32x16 b) {
  return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
}
inline I32x16 bit_and(I32x16 a, I32x16 b) {
  return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
}
inline I32x16 maximum(I32x16 a, I32x16 b) {
  return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
}
template <int count>
inline I32x16 shift_left(I32x16 value) {
  return {_mm256_slli_epi32(value.low, count), _mm256_slli_epi32(value.high, count)};
}
template <int count>
inline I32x16 shift_right_arithmetic(I32x16 value) {
  return {_mm256_srai_epi32(value.low, count), _mm256_srai_epi32(value.high, count)};
}
inline F32x16 to_f32(I32x16 value) {
  return {_mm256_cvtepi32_ps(value.low), _mm256_cvtepi32_ps(value.high)};
}
inline I32x16 round_to_i32(F32x16 value) {
  F32x16 shifted = add(value, broadcast(12582912.0f));
  return add(bits(shifted), broadcast(-0x4b400000));
}
inline int32_t fold_add(I32x16 value) {
  __m256i eight = _mm256_add_epi32(value.low, value.high);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
inline int32_t fold_maximum(I32x16 value) {
  __m256i eight = _mm256_max_epi32(value.low, value.high);
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
inline __m128i low_bytes(__m256i value) {  // eight bytes in the low half
  const __m256i gather = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                          0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  __m256i packed = _mm256_shuffle_epi8(value, gather);
  return _mm_unpacklo_epi32(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
}
inline void store_low_bytes(int8_t* to, I32x16 value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm_unpacklo_epi64(low_bytes(value.low), low_bytes(value.high)));
}

inline __m128i load_128(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
inline __m128i load_64(const uint8_t* from) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
}
inline __m256i load_256(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
inline void store_256(uint8_t* to, __m256i value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value);
}
inline F32x16 load_f16(const uint8_t* from) {
  return {_mm256_cvtph_ps(load_128(from)), _mm256_cvtph_ps(load_128(from + 16))};
}
inline F32x16 load_bf16(const uint8_t* from) {
  return from_bits(shift_left<16>(
      I32x16{_mm256_cvtepu16_epi32(load_128(from)), _mm256_cvtepu16_epi32(load_128(from + 16))}));
}
inline void store_f16(uint16_t* to, F32x16 value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8),
                   _mm256_cvtps_ph(value.high, _MM_FROUND_TO_NEAREST_INT));
}
inline F32x16 load_f8(const uint8_t* from) {
  auto widen = [](__m128i bytes) {  // eight bytes, each in the high half of 16 bits
    return _mm256_cvtph_ps(
        _mm_and_si128(_mm_srai_epi16(bytes, 1), _mm_set1_epi16(static_cast<short>(0xbf80))));
  };
  __m128i bytes = load_128(from), zero = _mm_setzero_si128();
  return {widen(_mm_unpacklo_epi8(zero, bytes)), widen(_mm_unpackhi_epi8(zero, bytes))};
}
inline I32x16 load_words(const uint8_t* from) {
  return {load_256(from), load_256(from + 32)};
}
inline void store_words(uint8_t* to, I32x16 value) {
  store_256(to, value.low);
  store_256(to + 32, value.high);
}
inline F32x16 fp4_low(I32x16 words) {
  const __m256 magnitudes = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  auto value = [&](__m256i word) {
    __m256 negative = _mm256_and_ps(_mm256_castsi256_ps(_mm256_slli_epi32(word, 28)), sign);
    return _mm256_or_ps(_mm256_permutevar8x32_ps(magnitudes, word), negative);
  };
  return {value(words.low), value(words.high)};
}
inline I32x16 load_u8(const uint8_t* from) {
  return {_mm256_cvtepu8_epi32(load_64(from)), _mm256_cvtepu8_epi32(load_64(from + 8))};
}
inline I32x16 load_u8_pairs(const uint8_t* from) {
  return {_mm256_cvtepu8_epi16(load_128(from)), _mm256_cvtepu8_epi16(load_128(from + 16))};
}
inline I32x16 load_i8(const uint8_t* from) {
  return {_mm256_cvtepi8_epi32(load_64(from)), _mm256_cvtepi8_epi32(load_64(from + 8))};
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
  return {load_256(from), load_256(from + 32)};
}
inline void store_bytes(uint8_t* to, U8x64 value) {
  store_256(to, value.low);
  store_256(to + 32, value.high);
}
inline U8x64 low_nibbles(U8x64 value) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(value.low, mask), _mm256_and_si256(value.high, mask)};
}
inline U8x64 high_nibbles(U8x64 value) {
  return low_nibbles({_mm256_srli_epi16(value.low, 4), _mm256_srli_epi16(value.high, 4)});
}
template <int shift>
inline U8x64 join_high_bits(U8x64 low, U8x64 high) {
  const __m256i mask = _mm256_set1_epi8(0x30);
  auto join = [&](__m256i a, __m256i b) {
    if constexpr (shift < 4) b = _mm256_slli_epi16(b, 4 - shift);
    if constexpr (shift > 4) b = _mm256_srli_epi16(b, shift - 4);
    return _mm256_or_si256(a, _mm256_and_si256(b, mask));
  };
  return {join(low.low, high.low), join(low.high, high.high)};
}
template <int shift>
inline U8x64 two_bits(U8x64 value) {
  const __m256i mask = _mm256_set1_epi8(3);
  return {_mm256_and_si256(_mm256_srli_epi16(value.low, shift), mask),
          _mm256_and_si256(_mm256_srli_epi16(value.high, shift), mask)};
}
template <int from, int to>
inline U8x64 join_bit(U8x64 low, U8x64 high) {
  const __m256i mask = _mm256_set1_epi8(1 << to);
  auto join = [&](__m256i a, __m256i b) {
    if constexpr (from < to) b = _mm256_slli_epi16(b, to - from);
    if constexpr (from > to) b = _mm256_srli_epi16(b, from - to);
    return _mm256_or_si256(a, _mm256_and_si256(b, mask));
  };
  return {join(low.low, high.low), join(low.high, high.high)};
}
inline U8x64 look_up(const uint8_t (&table)[16], U8x64 indices) {
  const __m256i both = _mm256_broadcastsi128_si256(load_128(table));
  return {_mm256_shuffle_epi8(both, indices.low), _mm256_shuffle_epi8(both, indices.high)};
}
inline I32x16 dot_pairs(I32x16 sum, I32x16 a, int32_t b) {
  __m256i pair = _mm256_set1_epi32(b);
  return {_mm256_add_epi32(sum.low, _mm256_madd_epi16(a.low, pair)),
          _mm256_add_epi32(sum.high, _mm256_madd_epi16(a.high, pair))};
}
inline void settle(I32x16& value) {
  asm volatile("" : "+x"(value.low), "+x"(value.high));
}

}  // namespace
}  // namespace shoal::engine::cpu
