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

template <int rows>
inline void zero_rows(I32x16 (&values)[rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) values[r] = zero_i32();
}

template <int rows>
inline void subtract_minima(const I32x16 (&totals)[rows], F32x16 weight_scales, const uint8_t* scales,
                            F32x16 (&sums)[rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) {
    F32x16 scale = multiply(weight_scales, broadcast(load_float(scales + 4 * r)));
    sums[r] = negative_fma(to_f32(totals[r]), scale, sums[r]);
  }
}

struct Q2_K {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;

  // Two sub-blocks of sixteen values.
  template <int quarter, int rows>
  static void add_quarter(const uint8_t* panel, const uint8_t* tile, int half, I32x16 (&totals)[rows]) {
    const I32x16 both = load_u8(panel + 64 + (half * 4 + quarter) * 16);
    const I32x16 scales[2] = {bit_and(both, broadcast(int32_t{15})), shift_right_arithmetic<4>(both)};
    for (int sub = 0; sub < 2; ++sub) {
      const uint8_t* words = panel + 320 + half * 512 + sub * 256;
      const uint8_t* activations = tile + (half * 8 + quarter * 2 + sub) * 16 * rows;
      I32x16 dots[rows];
      zero_rows<rows>(dots);
#pragma GCC unroll kUnroll
      for (int i = 0; i < 4; ++i) {
        dot_small_rows<rows>(two_bits<2 * quarter>(load_bytes(words + 64 * i)), activations + 4 * (i * rows),
                             dots);
      }
      add_sub_block<rows>(dots, scales[sub], totals);
    }
  }

  template <int rows>
  static void accumulate(const uint8_t* panel, const MatrixTask& task, const uint8_t* tile,
                         F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < task.columns / 256;
         ++block, panel += 1344, tile += kTileSuperBytes * rows) {
      prefetch_block<rows, 1344>(panel + 2 * 1344);
      I32x16 totals[rows];
      zero_rows<rows>(totals);
      for (int half = 0; half < 2; ++half) {
        add_quarter<0, rows>(panel, tile, half, totals);
        add_quarter<1, rows>(panel, tile, half, totals);
        add_quarter<2, rows>(panel, tile, half, totals);
        add_quarter<3, rows>(panel, tile, half, totals);
      }
      add_scaled<rows>(totals, load_f16(panel), tile + kTileScales * rows, sums);
      zero_rows<rows>(totals);
      for (int p = 0; p < 8; ++p) {
        const I32x16 both = load_u8(panel + 192 + 16 * p);
        const I32x16 minima = bit_and(add(both, shift_left<12>(both)), broadcast(int32_t{0x000f000f}));
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) {
          totals[r] =
              dot_pairs(totals[r], minima, load_word(tile + kTileSixteenSums * rows + 4 * (p * rows + r)));
        }
      }
      subtract_minima<rows>(totals, load_f16(panel + 32), tile + kTileScales * rows, sums);
    }
  }
};

struct Q3_K {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;

  template <int index>
  static I32x16 load_scale(const uint8_t* panel) {  // six bits, 32 too high
    I32x16 low = load_u8(panel + 64 + index / 2 * 16), high = load_u8(panel + 192 + index / 4 * 16);
    if constexpr (index % 2 == 1) low = shift_right_arithmetic<4>(low);
    high = shift_left<4>(shift_right_arithmetic<index % 4 * 2>(high));
    return add(add(bit_and(low, broadcast(int32_t{15})), bit_and(high, broadcast(int32_t{48}))),
               broadcast(int32_t{-32}));
  }

  // Sixteen values: half `index / 8` of the block, quarter `index / 2 % 4` of it.
  template <int index, int rows>
  static void add_sub(const uint8_t* panel, const uint8_t* tile, I32x16 (&totals)[rows]) {
    constexpr int half = index / 8, quarter = index / 2 % 4, sub = index % 2;
    const uint8_t *low = panel + 256 + half * 512 + sub * 256, *third = panel + 256 + 1024 + sub * 256;
    const uint8_t* activations = tile + index * 16 * rows;
    I32x16 dots[rows];
    load_rows<rows>(tile + kTileBiases * rows + index * 4 * rows, dots);
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) dots[r] = shift_right_arithmetic<3>(dots[r]);  // -32 sums to -4 sums
#pragma GCC unroll kUnroll
    for (int i = 0; i < 4; ++i) {
      U8x64 weights = join_bit<4 * half + quarter, 2>(two_bits<2 * quarter>(load_bytes(low + 64 * i)),
                                                      load_bytes(third + 64 * i));
      dot_small_rows<rows>(weights, activations + 4 * (i * rows), dots);
    }
    add_sub_block<rows>(dots, load_scale<index>(panel), totals);
  }

  template <int first, int rows>
  static void add_half(const uint8_t* panel, const uint8_t* tile, I32x16 (&totals)[rows]) {
    add_sub<first, rows>(panel, tile, totals);
    add_sub<first + 1, rows>(panel, tile, totals);
    add_sub<first + 2, rows>(panel, tile, totals);
    add_sub<first + 3, rows>(panel, tile, totals);
    add_sub<first + 4, rows>(panel, tile, totals);
    add_sub<first + 5, rows>(panel, tile, totals);
    add_sub<first + 6, rows>(panel, tile, totals);
    add_sub<first + 7, rows>(panel, tile, totals);
  }

  template <int rows>
  static void accumulate(const uint8_t* panel, const MatrixTask& task, const uint8_t* tile,
                         F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < task.columns / 256;
         ++block, panel += 1792, tile += kTileSuperBytes * rows) {
      prefetch_block<rows, 1792>(panel + 2 * 1792);
      I32x16 totals[rows];
      zero_rows<rows>(totals);
      add_half<0, rows>(panel, tile, totals);
      add_half<8, rows>(panel, tile, totals);
      add_scaled<rows>(totals, load_f16(panel), tile + kTileScales * rows, sums);
    }
  }
};

// q4_k, and q5_k with `fifth` bits behind the nibbles.
template <bool fifth>
struct NibbleK {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;
  static constexpr size_t kBytes = fifth ? 2880 : 2368;

  // Sub-block 2 * chunk + high of 32 values.
  template <int chunk, bool high, int rows>
  static void add_sub(const uint8_t* panel, const uint8_t* tile, I32x16 (&totals)[rows]) {
    constexpr int sub = 2 * chunk + high;
    const uint8_t* activations = tile + sub * 32 * rows;
    I32x16 dots[rows];
    zero_rows<rows>(dots);
#pragma GCC unroll kUnroll
    for (int i = 0; i < 8; ++i) {
      U8x64 both = load_bytes(panel + 320 + chunk * 512 + 64 * i);
      U8x64 weights = high ? high_nibbles(both) : low_nibbles(both);
      if constexpr (fifth) weights = join_bit<sub, 4>(weights, load_bytes(panel + 320 + 2048 + 64 * i));
      dot_small_rows<rows>(weights, activations + 4 * (i * rows), dots);
    }
    add_sub_block<rows>(dots, load_u8(panel + 64 + sub * 16), totals);
  }

  template <int chunk, int rows>
  static void add_chunk(const uint8_t* panel, const uint8_t* tile, I32x16 (&totals)[rows]) {
    add_sub<chunk, false, rows>(panel, tile, totals);
    add_sub<chunk, true, rows>(panel, tile, totals);
  }

  template <int rows>
  static void accumulate(const uint8_t* panel, const MatrixTask& task, const uint8_t* tile,
                         F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < task.columns / 256;
         ++block, panel += kBytes, tile += kTileSuperBytes * rows) {
      prefetch_block<rows, kBytes>(panel + 2 * kBytes);
      I32x16 totals[rows];
      zero_rows<rows>(totals);
      add_chunk<0, rows>(panel, tile, totals);
      add_chunk<1, rows>(panel, tile, totals);
      add_chunk<2, rows>(panel, tile, totals);
      add_chunk<3, rows>(panel, tile, totals);
      add_scaled<rows>(totals, load_f16(panel), tile + kTileScales * rows, sums);
      zero_rows<rows>(totals);
#pragma GCC unroll kUnroll
      for (int p = 0; p < 4; ++p) {
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) {
          totals[r] = dot_pairs(totals[r], panel + 192 + 32 * p,
                                load_word(tile + kTilePairSums * rows + 4 * (p * rows + r)));
        }
      }
      subtract_minima<rows>(totals, load_f16(panel + 32), tile + kTileScales * rows, sums);
    }
  }
};
using Q4_K = NibbleK<false>;
using Q5_K = NibbleK<true>;

struct Q6_K {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;

  // Sixteen values of each row: quarter q (0..3) of half h, sub-block s of the quarter.
  template <int quarter, int rows>
  static void add_sub(const uint8_t* low, const uint8_t* high, const uint8_t* activations,
                      const uint8_t* bias, I32x16 scales, I32x16 (&totals)[rows]) {
    I32x16 dots[rows];
    load_rows<rows>(bias, dots);
#pragma GCC unroll kUnroll
    for (int i = 0; i < 4; ++i) {
      U8x64 both = load_bytes(low + 64 * i);
      U8x64 weights = join_high_bits<2 * quarter>(quarter < 2 ? low_nibbles(both) : high_nibbles(both),
                                                  load_bytes(high + 64 * i));
      dot_small_rows<rows>(weights, activations + 4 * (i * rows), dots);
    }
    add_sub_block<rows>(dots, scales, totals);
  }

  template <int quarter, int rows>
  static void add_quarter(const uint8_t* panel, const uint8_t* tile, int half, I32x16 (&totals)[rows]) {
    const uint8_t* low = panel + 320 + half * 1024 + (quarter % 2) * 512;
    const uint8_t* high = panel + 320 + 2048 + half * 512;
    for (int sub = 0; sub < 2; ++sub) {
      int index = half * 8 + quarter * 2 + sub;
      add_sub<quarter, rows>(low + sub * 256, high + sub * 256, tile + index * 16 * rows,
                             tile + 260 * rows + index * 4 * rows, load_i8(panel + 64 + index * 16), totals);
    }
  }

  template <int rows>
  static void accumulate(const uint8_t* panel, const MatrixTask& task, const uint8_t* tile,
                         F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < task.columns / 256;
         ++block, panel += 3392, tile += kTileSuperBytes * rows) {
      prefetch_block<rows, 3392>(panel + 2 * 3392);
      I32x16 totals[rows];
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) totals[r] = zero_i32();
      for (int half = 0; half < 2; ++half) {
        add_quarter<0, rows>(panel, tile, half, totals);
        add_quarter<1, rows>(panel, tile, half, totals);
        add_quarter<2, rows>(panel, tile, half, totals);
        add_quarter<3, rows>(panel, tile, half, totals);
      }
      add_scaled<rows>(totals, load_f16(panel), tile + 256 * rows, sums);
    }
  }
};

struct Iq4_Xs {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;

  template <int rows>
  static void add_sub(const uint8_t* panel, const uint8_t* tile, int sub, I32x16 (&totals)[rows]) {
    const uint8_t *words = panel + 192 + sub * 256, *activations = tile + sub * 32 * rows;
    const uint8_t* biases = tile + kTileBiases * rows + sub * 8 * rows;
    I32x16 dots[rows];
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) {  // -128 sums from two times -32 sums
      dots[r] = kByteWeightsAreOffset
                    ? broadcast(4 * (load_word(biases + 4 * r) + load_word(biases + 4 * (rows + r))))
                    : zero_i32();
    }
#pragma GCC unroll kUnroll
    for (int i = 0; i < 4; ++i) {
      U8x64 both = load_bytes(words + 64 * i);
      dot_bytes_rows<rows>(look_up(kIq4Codes, low_nibbles(both)), activations + 4 * (i * rows), dots);
      dot_bytes_rows<rows>(look_up(kIq4Codes, high_nibbles(both)), activations + 4 * ((i + 4) * rows), dots);
    }
    add_sub_block<rows>(dots, load_i8(panel + 64 + sub * 16), totals);
  }

  template <int rows>
  static void accumulate(const uint8_t* panel, const MatrixTask& task, const uint8_t* tile,
                         F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < task.columns / 256;
         ++block, panel += 2240, tile += kTileSuperBytes * rows) {
      prefetch_block<rows, 2240>(panel + 2 * 2240);
      I32x16 totals[rows];
      zero_rows<rows>(totals);
      for (int sub = 0; sub < 8; ++sub) add_sub<rows>(panel, tile, sub, totals);
      add_scaled<rows>(totals, load_f16(panel), tile + kTileScales * rows, sums);
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu
