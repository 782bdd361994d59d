// What all matrix products share, written once over sixteen lanes (one lane per output row of a panel).
// Include after a lanes.h. The products themselves: float_weights.h, blocks_of_32.h, blocks_of_256.h; each
// states its order of operations, which is the same for every row count, thread count and instruction set.
#pragma once

namespace shoal::engine::cpu {
namespace {

// kUnroll, kTileRows and kFloatPanels are the instruction set's.
template <int count>
struct Rows {
  static constexpr int value = count;
};

// Calls function(Rows<count>()).
template <class Function>
inline void with_rows(uint32_t count, Function function) {
  switch (count) {
    case 1:
      return function(Rows<1>());
    case 2:
      return function(Rows<2>());
    case 3:
      return function(Rows<3>());
    case 4:
      return function(Rows<4>());
  }
  if constexpr (kTileRows > 4) {
    switch (count) {
      case 5:
        return function(Rows<5>());
      case 6:
        return function(Rows<6>());
      case 7:
        return function(Rows<7>());
      case 8:
        return function(Rows<8>());
    }
  }
  __builtin_unreachable();
}

template <int rows>
inline void store_panel(const MatrixTask& task, uint32_t panel, const F32x16 (&sums)[rows], float* output) {
  uint32_t first = panel * kPanelRows;
  uint32_t count = task.output_rows - first;
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) {
    float* to = output + static_cast<size_t>(r) * task.output_stride + first;
    if (count >= kPanelRows) {
      store(to, sums[r]);
    } else {
      store_partial(to, sums[r], count);
    }
  }
}

// --- Quantised weights: an exact integer per block, then float sums ---

template <int rows>
inline void load_rows(const uint8_t* words, I32x16 (&values)[rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) values[r] = broadcast(load_word(words + 4 * r));
}

template <int rows>
inline void add_scaled(const I32x16 (&dots)[rows], F32x16 weight_scales, const uint8_t* activation_scales,
                       F32x16 (&sums)[rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) {
    F32x16 scales = multiply(weight_scales, broadcast(load_float(activation_scales + 4 * r)));
    sums[r] = fma(to_f32(dots[r]), scales, sums[r]);
  }
}

template <int rows>
inline void dot_small_rows(U8x64 weights, const uint8_t* words, I32x16 (&dots)[rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) dots[r] = dot_small(dots[r], weights, load_word(words + 4 * r));
}

// The same for weights in the form of byte_weights().
template <int rows>
inline void dot_bytes_rows(U8x64 weights, const uint8_t* words, I32x16 (&dots)[rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) dots[r] = dot_bytes(dots[r], weights, load_word(words + 4 * r));
}

// The codebook of IQ4_NL and IQ4_XS (formats/quant_blocks.h), in the form of byte_weights().
constexpr uint8_t iq4_code(int value) {
  return static_cast<uint8_t>(kByteWeightsAreOffset ? value + 128 : value);
}
constexpr uint8_t kIq4Codes[16] = {iq4_code(-127), iq4_code(-104), iq4_code(-83), iq4_code(-65),
                                   iq4_code(-49),  iq4_code(-35),  iq4_code(-22), iq4_code(-10),
                                   iq4_code(1),    iq4_code(13),   iq4_code(25),  iq4_code(38),
                                   iq4_code(53),   iq4_code(69),   iq4_code(89),  iq4_code(113)};

// dots[r] * scales added to totals[r].
template <int rows>
inline void add_sub_block(const I32x16 (&dots)[rows], I32x16 scales, I32x16 (&totals)[rows]) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) totals[r] = add(totals[r], multiply(dots[r], scales));
}

// The hardware's prefetchers lose the many short runs inside a block of 256; with few rows, memory is what
// counts.
template <int rows, size_t bytes>
inline void prefetch_block(const uint8_t* from) {
  if constexpr (rows <= 2) {
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
  }
}

template <class Type>
void multiply_quantised(const MatrixTask& task) {
  for (uint32_t panel = task.first_panel; panel < task.end_panel; ++panel) {
    const uint8_t* weights = task.panels + panel * task.panel_bytes;
    for (uint32_t row = 0; row < task.row_count; row += kTileRows) {
      uint32_t rows = task.row_count - row < kTileRows ? task.row_count - row : kTileRows;
      const uint8_t* tile = task.activations + row * prepared_row_bytes(Type::kActivations, task.columns);
      float* output = task.output + row * task.output_stride;
      with_rows(rows, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        F32x16 sums[kRows];
#pragma GCC unroll kUnroll
        for (int r = 0; r < kRows; ++r) sums[r] = zero_f32();
        Type::template accumulate<kRows>(weights, task, tile, sums);
        store_panel<kRows>(task, panel, sums, output);
      });
    }
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
