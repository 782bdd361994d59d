// Dot products of a tile's rows by usmmla (FEAT_I8MM): two outputs times two rows, each eight bytes deep.
// Include after words_by_lane.h, before table.h.
//
// Two words of an output's codes become neighbours by zipping, two words of a row's activations likewise. A
// register of sums then holds [output 0, row 0], [output 0, row 1], [output 1, row 0], [output 1, row 1].
#pragma once

#include "engine/cpu/neon/words_by_lane.h"

namespace shoal::engine::cpu {
namespace {

// Of sixteen outputs and two rows: `low` has in part i outputs 4i and 4i + 1, `high` has the two after them.
struct PairSums {
  I32x16 low, high;
};

inline uint8x16_t zip_low(uint8x16_t a, uint8x16_t b) {
  return vreinterpretq_u8_u32(vzip1q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}
inline uint8x16_t zip_high(uint8x16_t a, uint8x16_t b) {
  return vreinterpretq_u8_u32(vzip2q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}

// `activations`: two words of one row, then the same two of the next.
[[gnu::always_inline]] inline void add_pair(PairSums& sums, U8x64 first_words, U8x64 second_words,
                                            int8x16_t activations) {
  sums.low = each_i32([&](int i) {
    return vusmmlaq_s32(sums.low.part[i], zip_low(first_words.part[i], second_words.part[i]), activations);
  });
  sums.high = each_i32([&](int i) {
    return vusmmlaq_s32(sums.high.part[i], zip_high(first_words.part[i], second_words.part[i]), activations);
  });
}

template <class Codes, int first, int end, int panels, int rows>
[[gnu::always_inline]] inline void add_dots_in_pairs(const Places<panels>& codes, uint32_t group,
                                                     const uint8_t* tile, I32x16 (&dots)[panels][rows]) {
  static_assert(first % 2 == 0 && end % 2 == 0);
  constexpr int kPairs = (rows + 1) / 2;  // the partner of an odd row is whatever comes after it
  PairSums sums[panels][kPairs];
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll kUnroll
    for (int pair = 0; pair < kPairs; ++pair) sums[p][pair] = {zero_i32(), zero_i32()};
  }
  for_each_index<first / 2, end / 2>([&](auto half) SHOAL_INLINE_LAMBDA {
    constexpr int kWord = 2 * decltype(half)::value;
    const uint8_t* words = tile + 4 * (kWord - first) * rows;
    const uint8x16_t even = vld1q_u8(words), odd = vld1q_u8(words + 4 * rows);
    const int8x16_t activations[2] = {vreinterpretq_s8_u8(zip_low(even, odd)),
                                      vreinterpretq_s8_u8(zip_high(even, odd))};
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) {
      const U8x64 first_words = Codes::template load_word_of<kWord>(codes[p], group);
      const U8x64 second_words = Codes::template load_word_of<kWord + 1>(codes[p], group);
#pragma GCC unroll kUnroll
      for (int pair = 0; pair < kPairs; ++pair)
        add_pair(sums[p][pair], first_words, second_words, activations[pair]);
    }
  });
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) {
      const PairSums& pair = sums[p][r / 2];
      const I32x16 row = each_i32([&](int i) {
        return r % 2 == 0 ? vuzp1q_s32(pair.low.part[i], pair.high.part[i])
                          : vuzp2q_s32(pair.low.part[i], pair.high.part[i]);
      });
      dots[p][r] = add(dots[p][r], row);
    }
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
