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

// Each of these adds the dot products of 32 codes to dots[r]; it counts each code kTaken too low. Inlined by
// force: in a call the dots would leave their registers.

struct FourBits {
  static constexpr int kTaken = 0;
  static constexpr size_t kBytes = 256;
  template <int rows>
  [[gnu::always_inline]] static inline void add_dots(const uint8_t* words, const uint8_t* tile,
                                                     I32x16 (&dots)[rows]) {
#pragma GCC unroll kUnroll
    for (int i = 0; i < 4; ++i) {
      U8x64 both = load_bytes(words + 64 * i);
      dot_small_rows<rows>(low_nibbles(both), tile + 4 * (i * rows), dots);
      dot_small_rows<rows>(high_nibbles(both), tile + 4 * ((i + 4) * rows), dots);
    }
  }
};

struct FiveBits {
  static constexpr int kTaken = 0;
  static constexpr size_t kBytes = 320;
  template <int word, int rows>
  [[gnu::always_inline]] static inline void add_word(const uint8_t* words, const uint8_t* tile, U8x64 fifth,
                                                     I32x16 (&dots)[rows]) {
    U8x64 both = load_bytes(words + 64 * word);
    dot_small_rows<rows>(join_bit<word, 4>(low_nibbles(both), fifth), tile + 4 * (word * rows), dots);
    dot_small_rows<rows>(join_bit<word + 4, 4>(high_nibbles(both), fifth), tile + 4 * ((word + 4) * rows),
                         dots);
  }
  template <int rows>
  [[gnu::always_inline]] static inline void add_dots(const uint8_t* words, const uint8_t* tile,
                                                     I32x16 (&dots)[rows]) {
    U8x64 fifth = load_bytes(words + 256);
    add_word<0, rows>(words, tile, fifth, dots);
    add_word<1, rows>(words, tile, fifth, dots);
    add_word<2, rows>(words, tile, fifth, dots);
    add_word<3, rows>(words, tile, fifth, dots);
  }
};

struct EightBits {
  static constexpr int kTaken = kByteWeightsAreOffset ? 0 : 128;
  static constexpr size_t kBytes = 512;
  template <int rows>
  [[gnu::always_inline]] static inline void add_dots(const uint8_t* words, const uint8_t* tile,
                                                     I32x16 (&dots)[rows]) {
#pragma GCC unroll kUnroll
    for (int i = 0; i < 8; ++i)
      dot_bytes_rows<rows>(byte_weights(words + 64 * i), tile + 4 * (i * rows), dots);
  }
};

struct Iq4Bits {  // codes are the codebook's values + 128
  static constexpr int kTaken = kByteWeightsAreOffset ? 0 : 128;
  static constexpr size_t kBytes = 256;
  template <int rows>
  [[gnu::always_inline]] static inline void add_dots(const uint8_t* words, const uint8_t* tile,
                                                     I32x16 (&dots)[rows]) {
#pragma GCC unroll kUnroll
    for (int i = 0; i < 4; ++i) {
      U8x64 both = load_bytes(words + 64 * i);
      dot_bytes_rows<rows>(look_up(kIq4Codes, low_nibbles(both)), tile + 4 * (i * rows), dots);
      dot_bytes_rows<rows>(look_up(kIq4Codes, high_nibbles(both)), tile + 4 * ((i + 4) * rows), dots);
    }
  }
};

// dots[r] = -offset * sum of the int8, from -128 * that sum.
template <int offset, int rows>
inline void start_dots(const uint8_t* biases, I32x16 (&dots)[rows]) {
  static_assert(offset == 0 || offset == 8 || offset == 16 || offset == 128 || offset == -128);
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) {
    if constexpr (offset == 0) {
      dots[r] = zero_i32();
    } else if constexpr (offset == -128) {
      dots[r] = broadcast(-load_word(biases + 4 * r));
    } else {
      dots[r] = broadcast(load_word(biases + 4 * r));
      if constexpr (offset == 16) dots[r] = shift_right_arithmetic<3>(dots[r]);
      if constexpr (offset == 8) dots[r] = shift_right_arithmetic<4>(dots[r]);
    }
  }
}

constexpr int kTileBlockBytes = 44;  // of prepared activations, a row

// Pairs of blocks behind two scales; weight = scale * (code - zero).
template <class Codes, int zero>
struct Symmetric {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_32;
  template <int rows>
  static void accumulate(const uint8_t* panel, const MatrixTask& task, const uint8_t* tile,
                         F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < task.columns / 32; ++block, tile += kTileBlockBytes * rows) {
      const uint8_t* pair = panel + size_t{block / 2} * (64 + 2 * Codes::kBytes);
      if (block % 2 == 0) prefetch_block<rows, 64 + 2 * Codes::kBytes>(pair + 4 * (64 + 2 * Codes::kBytes));
      I32x16 dots[rows];
      start_dots<zero - Codes::kTaken, rows>(tile + 36 * rows, dots);
      Codes::template add_dots<rows>(pair + 64 + block % 2 * Codes::kBytes, tile, dots);
      add_scaled<rows>(dots, load_f16(pair + block % 2 * 32), tile + 32 * rows, sums);
    }
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

// Groups of blocks behind a scale and a bias; weight = scale * code + bias.
template <class Codes, class Scales>
struct Affine {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_32;
  template <int rows>
  static void accumulate(const uint8_t* panel, const MatrixTask& task, const uint8_t* tile,
                         F32x16 (&sums)[rows]) {
    for (uint32_t first = 0; first < task.columns; first += task.group_columns) {
      const uint32_t left = task.columns - first;
      const uint32_t blocks = (left < task.group_columns ? left : task.group_columns) / 32;
      const F32x16 scales = Scales::load_scales(panel);
      const F32x16 biases = Scales::load_scales(panel + Scales::kBytes);
      panel += 2 * Scales::kBytes;
      for (uint32_t b = 0; b < blocks; ++b, panel += Codes::kBytes, tile += kTileBlockBytes * rows) {
        I32x16 dots[rows];
        start_dots<-Codes::kTaken, rows>(tile + 36 * rows, dots);
        Codes::template add_dots<rows>(panel, tile, dots);
        add_scaled<rows>(dots, scales, tile + 32 * rows, sums);
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) {
          sums[r] = fma(biases, broadcast(load_float(tile + 40 * rows + 4 * r)), sums[r]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu
