// Dot products of bytes by vpmaddubsw, where there is nothing better. It adds two products in 16 bits, which
// hold the sums of several words when codes are small.
#pragma once

#include "engine/cpu/avx2/lanes.h"

namespace shoal::engine::cpu {
namespace {

constexpr bool kByteWeightsAreOffset = false;  // byte_weights() takes the 128 off again

inline U8x64 byte_weights(const uint8_t* from) {
  const __m256i offset = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(load_256(from), offset), _mm256_xor_si256(load_256(from + 32), offset)};
}
// vpmaddubsw adds two products in 16 bits: 2 * 127 * 127 fits, and so does 2 * 128 * 127.
inline __m256i dot_u7(__m256i sum, __m256i weights, __m256i activations) {
  __m256i pairs = _mm256_maddubs_epi16(weights, activations);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline I32x16 dot_small(I32x16 sum, U8x64 weights, int32_t activations) {
  __m256i a = _mm256_set1_epi32(activations);
  return {dot_u7(sum.low, weights.low, a), dot_u7(sum.high, weights.high, a)};
}
// |w| * (a with w's sign), since vpmaddubsw wants its first operand unsigned.
inline I32x16 dot_bytes(I32x16 sum, U8x64 weights, int32_t activations) {
  __m256i a = _mm256_set1_epi32(activations);
  return {dot_u7(sum.low, _mm256_abs_epi8(weights.low), _mm256_sign_epi8(a, weights.low)),
          dot_u7(sum.high, _mm256_abs_epi8(weights.high), _mm256_sign_epi8(a, weights.high))};
}

}  // namespace
}  // namespace shoal::engine::cpu

#include "engine/cpu/sixteen_lanes/matrix.h"

namespace shoal::engine::cpu {
namespace {

struct Pairs {  // sums of 16 bits, two a lane
  __m256i low;
  __m256i high;
};

template <>
struct DotLoop<I32x16> {
  // Words whose sums of two products each fit 16 bits.
  template <class Codes>
  static constexpr int kWords = Codes::kOffset              ? 1
                                : Codes::kLargestCode <= 15 ? 8
                                : Codes::kLargestCode <= 31 ? 4
                                                            : 2;

  template <class Codes, int first, int end, int panels, int rows>
  [[gnu::always_inline]] static inline void add(const Places<panels>& codes, uint32_t group,
                                                const uint8_t* tile, I32x16 (&dots)[panels][rows]) {
    static_assert(panels == 1);
    if constexpr (first < end) {
      constexpr int last = first + kWords<Codes> < end ? first + kWords<Codes> : end;
      add_run<Codes, first, last, rows>(codes[0], group, tile, dots[0]);
      add<Codes, last, end, panels, rows>(codes, group, tile + 4 * (last - first) * rows, dots);
    }
  }

  template <class Codes, int first, int end, int rows>
  [[gnu::always_inline]] static inline void add_run(const uint8_t* codes, uint32_t group, const uint8_t* tile,
                                                    I32x16 (&dots)[rows]) {
    if constexpr (end - first == 1) {
      const U8x64 weights = Codes::template load_word_of<first>(codes, group);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) dots[r] = dot<Codes::kOffset>(dots[r], weights, tile + 4 * r);
    } else {
      Pairs pairs[rows];
      for_each_index<first, end>([&](auto word) SHOAL_INLINE_LAMBDA {
        const U8x64 weights = Codes::template load_word_of<word.value>(codes, group);
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) {
          const __m256i a = _mm256_set1_epi32(load_word(tile + 4 * ((word.value - first) * rows + r)));
          const Pairs next = {_mm256_maddubs_epi16(weights.low, a), _mm256_maddubs_epi16(weights.high, a)};
          pairs[r] = word.value == first ? next
                                         : Pairs{_mm256_add_epi16(pairs[r].low, next.low),
                                                 _mm256_add_epi16(pairs[r].high, next.high)};
        }
      });
      const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) {
        dots[r] = cpu::add(
            dots[r], I32x16{_mm256_madd_epi16(pairs[r].low, ones), _mm256_madd_epi16(pairs[r].high, ones)});
      }
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu
