// Products of weights in blocks of 256, which meet int8 activations in blocks of 256. Include after matrix.h.
//
// The order of operations, per block: dot = exact integer sum of sub_scale * sub_dot over the sub-blocks;
// scale = d * activation_scale (rounded); sum = fma(float(dot), scale, sum). For q2_k, q4_k and q5_k then
// also, with mins = exact integer sum of sub_min * sum of the sub-block's int8:
// sum = fma(-float(mins), dmin * activation_scale, sum).
// float(dot) rounds to nearest even (dot may exceed 24 bits).
#pragma once

#include "engine/cpu/sixteen_lanes/matrix.h"

namespace shoal::engine::cpu {
namespace {

constexpr int kTileSuperBytes = 372;  // of prepared activations, a row
// Within a tile's block, for each row:
constexpr int kTileScales = 256;
constexpr int kTileBiases = 260;
constexpr int kTilePairSums = 324;
constexpr int kTileSixteenSums = 340;

// How a type's codes, sub-scales and minima lie in a block of a panel. A block is kGroups groups that look
// alike, so that code for one group serves all:
//   kSubValues: 16 or 32, values that share a sub-scale; kZero: what a code counts too high (0, 4, 32, 128);
//   load_word_of<w>: codes of values 4w to 4w + 3 of a group, kOffset: in the form of byte_weights();
//   load_scale<s>: sub-scale of values s * kSubValues on, of a group;
//   kMinima: words of load_minima<p>, each two int16, which meet the sums at kTileMinima;
//   kUnpackRows (of UnpackingSuperBlocks): from how many rows on it pays to unpack codes and sub-scales.

struct Q2_K {
  static constexpr size_t kBytes = 1344;
  static constexpr int kGroups = 2, kSubValues = 16, kZero = 0, kMinima = 8, kTileMinima = kTileSixteenSums;
  static constexpr uint32_t kUnpackRows = 4 * kTileRows;
  static constexpr int kLargestCode = 3;
  static constexpr bool kOffset = false;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* panel, uint32_t half) {
    return two_bits<2 * (word / 8)>(load_bytes(panel + 320 + half * 512 + word % 8 * 64));
  }
  template <int sub>
  static I32x16 load_scale(const uint8_t* panel, uint32_t half) {
    const I32x16 both = load_u8(panel + 64 + half * 64 + sub / 2 * 16);
    return sub % 2 == 0 ? bit_and(both, broadcast(int32_t{15})) : shift_right_arithmetic<4>(both);
  }
  template <int pair>
  static I32x16 load_minima(const uint8_t* panel) {
    const I32x16 both = load_u8(panel + 192 + 16 * pair);
    return bit_and(add(both, shift_left<12>(both)), broadcast(int32_t{0x000f000f}));
  }
};

struct Q3_K {
  static constexpr size_t kBytes = 1792;
  static constexpr int kGroups = 1, kSubValues = 16, kZero = 4, kMinima = 0, kTileMinima = 0;
  static constexpr uint32_t kUnpackRows = 4 * kTileRows;
  static constexpr int kLargestCode = 7;
  static constexpr bool kOffset = false;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* panel, uint32_t) {
    constexpr int half = word / 32, quarter = word / 8 % 4, rest = word % 8;
    const U8x64 low = two_bits<2 * quarter>(load_bytes(panel + 256 + half * 512 + rest * 64));
    return join_bit<4 * half + quarter, 2>(low, load_bytes(panel + 256 + 1024 + rest * 64));
  }
  template <int sub>
  static I32x16 load_scale(const uint8_t* panel, uint32_t) {  // six bits, 32 too high
    I32x16 low = load_u8(panel + 64 + sub / 2 * 16), high = load_u8(panel + 192 + sub / 4 * 16);
    if constexpr (sub % 2 == 1) low = shift_right_arithmetic<4>(low);
    high = shift_left<4>(shift_right_arithmetic<sub % 4 * 2>(high));
    return add(add(bit_and(low, broadcast(int32_t{15})), bit_and(high, broadcast(int32_t{48}))),
               broadcast(int32_t{-32}));
  }
};

struct Q4_K {
  static constexpr size_t kBytes = 2368;
  static constexpr int kGroups = 4, kSubValues = 32, kZero = 0, kMinima = 4, kTileMinima = kTilePairSums;
  static constexpr int kLargestCode = 15;
  static constexpr bool kOffset = false;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* panel, uint32_t group) {
    const U8x64 both = load_bytes(panel + 320 + group * 512 + word % 8 * 64);
    return word < 8 ? low_nibbles(both) : high_nibbles(both);
  }
  template <int sub>
  static I32x16 load_scale(const uint8_t* panel, uint32_t group) {
    return load_u8(panel + 64 + group * 32 + sub * 16);
  }
  template <int pair>
  static I32x16 load_minima(const uint8_t* panel) {
    return load_u8_pairs(panel + 192 + 32 * pair);
  }
};

// As q4_k, with the fifth bits behind the nibbles.
struct Q5_K {
  static constexpr size_t kBytes = 2880;
  static constexpr int kGroups = 1, kSubValues = 32, kZero = 0, kMinima = 4, kTileMinima = kTilePairSums;
  static constexpr uint32_t kUnpackRows = 4 * kTileRows;
  static constexpr int kLargestCode = 31;
  static constexpr bool kOffset = false;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* panel, uint32_t) {
    const U8x64 nibbles = Q4_K::load_word_of<word % 16>(panel, word / 16);
    return join_bit<word / 8, 4>(nibbles, load_bytes(panel + 320 + 2048 + word % 8 * 64));
  }
  template <int sub>
  static I32x16 load_scale(const uint8_t* panel, uint32_t) {
    return Q4_K::load_scale<sub>(panel, 0);
  }
  template <int pair>
  static I32x16 load_minima(const uint8_t* panel) {
    return Q4_K::load_minima<pair>(panel);
  }
};

struct Q6_K {
  static constexpr size_t kBytes = 3392;
  static constexpr int kGroups = 2, kSubValues = 16, kZero = 32, kMinima = 0, kTileMinima = 0;
  static constexpr uint32_t kUnpackRows = 4 * kTileRows;
  static constexpr int kLargestCode = 63;
  static constexpr bool kOffset = false;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* panel, uint32_t half) {
    constexpr int quarter = word / 8, rest = word % 8;
    const U8x64 both = load_bytes(panel + 320 + half * 1024 + quarter % 2 * 512 + rest * 64);
    return join_high_bits<2 * quarter>(quarter < 2 ? low_nibbles(both) : high_nibbles(both),
                                       load_bytes(panel + 320 + 2048 + half * 512 + rest * 64));
  }
  template <int sub>
  static I32x16 load_scale(const uint8_t* panel, uint32_t half) {
    return load_i8(panel + 64 + half * 128 + sub * 16);
  }
};

struct Iq4_Xs {
  static constexpr size_t kBytes = 2240;
  static constexpr int kGroups = 8, kSubValues = 32, kZero = kByteWeightsAreOffset ? 128 : 0, kMinima = 0,
                       kTileMinima = 0;
  static constexpr int kLargestCode = 255;
  static constexpr bool kOffset = true;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* panel, uint32_t sub) {
    const U8x64 both = load_bytes(panel + 192 + sub * 256 + word % 4 * 64);
    return look_up(kIq4Codes, word < 4 ? low_nibbles(both) : high_nibbles(both));
  }
  template <int>
  static I32x16 load_scale(const uint8_t* panel, uint32_t sub) {
    return load_i8(panel + 64 + sub * 16);
  }
};

// A block of one of these types after unpack(): its scales as they were, the minima, and per sub-block its
// scales [16] i32 and its codes.
template <class Type>
struct UnpackedBlock {
  static constexpr int kGroups = 256 / Type::kSubValues, kSubValues = Type::kSubValues, kZero = Type::kZero;
  static constexpr int kMinima = Type::kMinima, kTileMinima = Type::kTileMinima;
  static constexpr int kLargestCode = Type::kLargestCode;
  static constexpr bool kOffset = Type::kOffset;
  static constexpr size_t kSubsAt = 64 + 64 * kMinima, kSubBytes = 64 + 16 * kSubValues;
  static constexpr size_t kBytes = kSubsAt + kGroups * kSubBytes;

  static void unpack(const uint8_t* block, uint8_t* to) {
    __builtin_memcpy(to, block, 64);
    if constexpr (kMinima > 0) {
      for_each_index<0, kMinima>([&](auto pair) SHOAL_INLINE_LAMBDA {
        store_words(to + 64 + 64 * pair.value, Type::template load_minima<pair.value>(block));
      });
    }
    for (uint32_t group = 0; group < Type::kGroups; ++group) {
      uint8_t* subs = to + kSubsAt + group * (kGroups / Type::kGroups) * kSubBytes;
      for_each_index<0, kGroups / Type::kGroups>([&](auto sub) SHOAL_INLINE_LAMBDA {
        store_words(subs + sub.value * kSubBytes, Type::template load_scale<sub.value>(block, group));
      });
      for_each_index<0, 64 / Type::kGroups>([&](auto word) SHOAL_INLINE_LAMBDA {
        constexpr int kSubWords = kSubValues / 4;
        store_bytes(subs + word.value / kSubWords * kSubBytes + 64 + word.value % kSubWords * 64,
                    Type::template load_word_of<word.value>(block, group));
      });
    }
  }
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* block, uint32_t sub) {
    return load_bytes(block + kSubsAt + sub * kSubBytes + 64 + 64 * word);
  }
  template <int>
  static I32x16 load_scale(const uint8_t* block, uint32_t sub) {
    return load_words(block + kSubsAt + sub * kSubBytes);
  }
  template <int pair>
  static I32x16 load_minima(const uint8_t* block) {
    return load_words(block + 64 + 64 * pair);
  }
};

// -zero * sum of a sub-block's int8, from -32 times the sums of sixteens ([16][rows], `bias` that of the
// first).
template <int zero, int rows>
[[gnu::always_inline]] inline I32x16 start_sub_dot(const uint8_t* bias) {
  static_assert(zero == 0 || zero == 4 || zero == 32 || zero == 128);
  if constexpr (zero == 0) return zero_i32();
  if constexpr (zero == 4) return shift_right_arithmetic<3>(broadcast(load_word(bias)));
  if constexpr (zero == 128)
    return broadcast(4 * (load_word(bias) + load_word(bias + 4 * rows)));  // of 32 values
  return broadcast(load_word(bias));
}

// sum - float(minima) * (minimum_scale * activation_scale)
[[gnu::always_inline]] inline F32x16 subtract_scaled(F32x16 sum, I32x16 minima, F32x16 minimum_scales,
                                                     const uint8_t* activation_scale) {
  return negative_fma(to_f32(minima), multiply(minimum_scales, broadcast(load_float(activation_scale))), sum);
}

// The product of blocks of `Type`, packed or unpacked.
template <class Type>
struct SuperBlocks {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;
  static constexpr int kSubWords = Type::kSubValues / 4, kGroupSubs = 256 / Type::kSubValues / Type::kGroups;

  static const uint8_t* chunk_at(const uint8_t* panel, const MatrixTask&, uint32_t column) {
    return panel + column / 256 * Type::kBytes;
  }

  // totals += sub_scale * sub_dot for sub-block `sub` of a group; its activations start at `tile`, its biases
  // at `biases`.
  template <int sub, int panels, int rows>
  [[gnu::always_inline]] static void add_sub(const Places<panels>& blocks, uint32_t group,
                                             const uint8_t* tile, const uint8_t* biases,
                                             I32x16 (&totals)[panels][rows]) {
    I32x16 dots[panels][rows];
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) {
      const I32x16 start = start_sub_dot<Type::kZero, rows>(biases + 4 * r);
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) dots[p][r] = start;
    }
    add_dots<Type, sub * kSubWords, (sub + 1) * kSubWords, panels, rows>(blocks, group, tile, dots);
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) {
      const I32x16 scales = Type::template load_scale<sub>(blocks[p], group);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) {
        totals[p][r] = add(totals[p][r], multiply(dots[p][r], scales));
        settle(totals[p][r]);
      }
    }
  }

  template <int rows>
  [[gnu::always_inline]] static void add_block(const uint8_t* block, const uint8_t* tile,
                                               const I32x16 (&totals)[rows], F32x16 (&sums)[rows]) {
    const uint8_t* activation_scales = tile + kTileScales * rows;
    const F32x16 scales = load_f16(block);
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r)
      sums[r] = add_scaled(sums[r], totals[r], scales, activation_scales + 4 * r);
    if constexpr (Type::kMinima > 0) {
      I32x16 minima[rows];
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) minima[r] = zero_i32();
      for_each_index<0, Type::kMinima>([&](auto pair) SHOAL_INLINE_LAMBDA {
        const I32x16 both = Type::template load_minima<pair.value>(block);
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) {
          minima[r] = dot_pairs(minima[r], both,
                                load_word(tile + Type::kTileMinima * rows + 4 * (pair.value * rows + r)));
        }
      });
      const F32x16 minimum_scales = load_f16(block + 32);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) {
        sums[r] = subtract_scaled(sums[r], minima[r], minimum_scales, activation_scales + 4 * r);
      }
    }
  }

  template <int panels, int rows>
  [[gnu::noinline]] static void accumulate(const MatrixTask&, const Places<panels>& chunks, uint32_t columns,
                                           const uint8_t* tile, float* tile_sums,
                                           const Ahead<panels>& ahead) {
    F32x16 sums[panels][rows];
    load_sums(tile_sums, sums);
    for (uint32_t b = 0; b < columns / 256; ++b, tile += kTileSuperBytes * rows) {
      Places<panels> blocks;
      I32x16 totals[panels][rows];
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) {
        blocks[p] = chunks[p] + b * Type::kBytes;
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) totals[p][r] = zero_i32();
      }
      prefetch_block<rows, Type::kBytes>(blocks[0] + 2 * Type::kBytes);
      for (uint32_t group = 0; group < Type::kGroups; ++group) {
        for_each_index<0, kGroupSubs>([&](auto sub) SHOAL_INLINE_LAMBDA {
          const uint32_t index = group * kGroupSubs + sub.value;
          const uint32_t column = b * 256 + index * Type::kSubValues;
          if (rows > 1 && column % kBiteColumns == 0) ahead.fetch(column / kBiteColumns);
          add_sub<sub.value, panels, rows>(blocks, group, tile + index * Type::kSubValues * rows,
                                           tile + (kTileBiases + index * (Type::kSubValues / 16) * 4) * rows,
                                           totals);
        });
      }
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) add_block<rows>(blocks[p], tile, totals[p], sums[p]);
    }
    store_sums(sums, tile_sums);
  }
};

template <class Type>
struct UnpackingSuperBlocks : SuperBlocks<Type> {
  static constexpr uint32_t kUnpackRows = Type::kUnpackRows;
  static constexpr size_t kUnpackedBytes = UnpackedBlock<Type>::kBytes;  // of a chunk
  using Unpacked = SuperBlocks<UnpackedBlock<Type>>;
  static void unpack(const uint8_t* chunk, uint8_t* to) { UnpackedBlock<Type>::unpack(chunk, to); }
};

}  // namespace
}  // namespace shoal::engine::cpu
