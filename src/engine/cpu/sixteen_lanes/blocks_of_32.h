// Products of weights in blocks of 32, which meet int8 activations in blocks of 32. Include after matrix.h.
//
// The order of operations, per block:
//   q8_0, q4_0, q5_0, iq4_nl:  dot = exact integer of the signed weights; scale = weight_scale *
//                    activation_scale (rounded); sum = fma(float(dot), scale, sum).
//   affine4, affine5, affine8:  dot = exact integer of the unsigned weights; the same; then
//                    sum = fma(bias, activation_total, sum), where activation_total =
//                    activation_scale * float(sum of the int8) (rounded, in the prepared activations).
#pragma once

#include "engine/cpu/sixteen_lanes/matrix.h"

namespace shoal::engine::cpu {
namespace {

// Where the 32 codes of a block lie in a panel. A code counts `kTaken` too low; kOffset: the words are in the
// form of byte_weights().

struct FourBits {
  static constexpr int kTaken = 0;
  static constexpr int kLargestCode = 15;
  static constexpr bool kOffset = false;
  static constexpr size_t kBytes = 256;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* codes, uint32_t) {
    const U8x64 both = load_bytes(codes + 64 * (word % 4));
    return word < 4 ? low_nibbles(both) : high_nibbles(both);
  }
};

struct FiveBits {
  static constexpr int kTaken = 0;
  static constexpr int kLargestCode = 31;
  static constexpr bool kOffset = false;
  static constexpr size_t kBytes = 320;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* codes, uint32_t) {
    return join_bit<word, 4>(FourBits::load_word_of<word>(codes, 0), load_bytes(codes + 256));
  }
};

struct EightBits {
  static constexpr int kTaken = kByteWeightsAreOffset ? 0 : 128;
  static constexpr int kLargestCode = 255;
  static constexpr bool kOffset = true;
  static constexpr size_t kBytes = 512;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* codes, uint32_t) {
    return byte_weights(codes + 64 * word);
  }
};

struct Iq4Bits {  // codes are the codebook's values + 128
  static constexpr int kTaken = kByteWeightsAreOffset ? 0 : 128;
  static constexpr int kLargestCode = 255;
  static constexpr bool kOffset = true;
  static constexpr size_t kBytes = 256;
  template <int word>
  [[gnu::always_inline]] static inline U8x64 load_word_of(const uint8_t* codes, uint32_t) {
    return look_up(kIq4Codes, FourBits::load_word_of<word>(codes, 0));
  }
};

// -offset * sum of the int8, from -128 * that sum.
template <int offset>
[[gnu::always_inline]] inline I32x16 start_dot(const uint8_t* bias) {
  static_assert(offset == 0 || offset == 8 || offset == 16 || offset == 128 || offset == -128);
  if constexpr (offset == 0) return zero_i32();
  if constexpr (offset == -128) return broadcast(-load_word(bias));
  const I32x16 start = broadcast(load_word(bias));
  if constexpr (offset == 16) return shift_right_arithmetic<3>(start);
  if constexpr (offset == 8) return shift_right_arithmetic<4>(start);
  return start;
}

constexpr int kTileBlockBytes = 44;  // of prepared activations, a row
// Within a tile's block, for each row:
constexpr int kTileBlockScales = 32;
constexpr int kTileBlockBiases = 36;
constexpr int kTileBlockTotals = 40;

// dots[p][r] of a block of 32.
template <class Codes, int offset, int panels, int rows>
[[gnu::always_inline]] inline void dot_blocks(const Places<panels>& codes, const uint8_t* tile,
                                              I32x16 (&dots)[panels][rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) {
    const I32x16 start = start_dot<offset>(tile + kTileBlockBiases * rows + 4 * r);
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) dots[p][r] = start;
  }
  add_dots<Codes, 0, 8, panels, rows>(codes, 0, tile, dots);
}

// Pairs of blocks behind two scales; weight = scale * (code - zero).
template <class Codes, int zero>
struct Symmetric {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_32;
  static constexpr size_t kPairBytes = 64 + 2 * Codes::kBytes;

  static const uint8_t* chunk_at(const uint8_t* panel, const MatrixTask&, uint32_t column) {
    return panel + size_t{column / 64} * kPairBytes;
  }

  template <int panels, int rows>
  [[gnu::noinline]] static void accumulate(const MatrixTask&, const Places<panels>& chunks, uint32_t columns,
                                           const uint8_t* tile, float* tile_sums,
                                           const Ahead<panels>& ahead) {
    F32x16 sums[panels][rows];
    load_sums(tile_sums, sums);
    for (uint32_t block = 0; block < columns / 32; ++block, tile += kTileBlockBytes * rows) {
      const size_t pair = block / 2 * kPairBytes;
      if (block % 2 == 0) prefetch_block<rows, kPairBytes>(chunks[0] + pair + 4 * kPairBytes);
      if (rows > 1) ahead.fetch(block);
      Places<panels> codes;
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) codes[p] = chunks[p] + pair + 64 + block % 2 * Codes::kBytes;
      I32x16 dots[panels][rows];
      dot_blocks<Codes, zero - Codes::kTaken, panels, rows>(codes, tile, dots);
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) {
        const F32x16 scales = load_f16(chunks[p] + pair + block % 2 * 32);
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) {
          sums[p][r] = add_scaled(sums[p][r], dots[p][r], scales, tile + kTileBlockScales * rows + 4 * r);
        }
      }
    }
    store_sums(sums, tile_sums);
  }
};

struct F16Scales {
  static constexpr size_t kBytes = 32;
  static F32x16 load_scales(const uint8_t* from) { return load_f16(from); }
};
struct Bf16Scales {
  static constexpr size_t kBytes = 32;
  static F32x16 load_scales(const uint8_t* from) { return load_bf16(from); }
};
struct F32Scales {
  static constexpr size_t kBytes = 64;
  static F32x16 load_scales(const uint8_t* from) { return load(reinterpret_cast<const float*>(from)); }
};

// Groups of blocks behind a scale and a bias; weight = scale * code + bias. A chunk is whole groups.
template <class Codes, class Scales>
struct Affine {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_32;

  static const uint8_t* chunk_at(const uint8_t* panel, const MatrixTask& task, uint32_t column) {
    return panel + column / task.group_columns * 2 * Scales::kBytes + size_t{column / 32} * Codes::kBytes;
  }

  template <int panels, int rows>
  [[gnu::noinline]] static void accumulate(const MatrixTask& task, const Places<panels>& chunks,
                                           uint32_t columns, const uint8_t* tile, float* tile_sums,
                                           const Ahead<panels>& ahead) {
    F32x16 sums[panels][rows];
    load_sums(tile_sums, sums);
    size_t group = 0;
    for (uint32_t first = 0; first < columns; first += task.group_columns) {
      const uint32_t left = columns - first;
      const uint32_t blocks = (left < task.group_columns ? left : task.group_columns) / 32;
      size_t at = group + 2 * Scales::kBytes;
      for (uint32_t b = 0; b < blocks; ++b, at += Codes::kBytes, tile += kTileBlockBytes * rows) {
        prefetch_block<rows, Codes::kBytes>(chunks[0] + at + 8 * Codes::kBytes);
        if (rows > 1) ahead.fetch(first / kBiteColumns + b);
        add_block<panels, rows>(chunks, group, at, tile, sums);
      }
      group = at;
    }
    store_sums(sums, tile_sums);
  }

  template <int panels, int rows>
  [[gnu::always_inline]] static void add_block(const Places<panels>& chunks, size_t group, size_t at,
                                               const uint8_t* tile, F32x16 (&sums)[panels][rows]) {
    Places<panels> codes;
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) codes[p] = chunks[p] + at;
    I32x16 dots[panels][rows];
    dot_blocks<Codes, -Codes::kTaken, panels, rows>(codes, tile, dots);
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) {
      const F32x16 scales = Scales::load_scales(chunks[p] + group);
      const F32x16 biases = Scales::load_scales(chunks[p] + group + Scales::kBytes);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) {
        sums[p][r] = add_scaled(sums[p][r], dots[p][r], scales, tile + kTileBlockScales * rows + 4 * r);
        sums[p][r] = fma(biases, broadcast(load_float(tile + kTileBlockTotals * rows + 4 * r)), sums[p][r]);
      }
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu
