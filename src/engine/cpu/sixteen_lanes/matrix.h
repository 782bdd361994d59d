// Matrix products, written once over sixteen lanes (one lane per output row of a panel). Include after a
// lanes.h.
//
// The order of operations, which is the same for every row count, thread count and instruction set:
//   f32, f16, bf16:  sum = fma(weight[k], activation[k], sum) for k = 0, 1, ..., the weight widened exactly.
//   q8_0, q4_0:      per block of 32: dot = exact integer; scale = weight_scale * activation_scale (rounded);
//                    sum = fma(float(dot), scale, sum).
//   q4_k, q6_k:      per block of 256: dot = exact integer sum of sub_scale * sub_dot; scale = d *
//   activation_scale;
//                    sum = fma(float(dot), scale, sum); for q4_k then also, with mins = exact integer sum of
//                    sub_min * activation_sum: sum = fma(-float(mins), dmin * activation_scale, sum).
// float(dot) rounds to nearest even (dot may exceed 24 bits).
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

// --- Float weights ---

struct F32Weights {
  static constexpr size_t kPanelColumnBytes = 64;
  static F32x16 load_column(const uint8_t* from) { return load(reinterpret_cast<const float*>(from)); }
};
struct F16Weights {
  static constexpr size_t kPanelColumnBytes = 32;
  static F32x16 load_column(const uint8_t* from) { return load_f16(from); }
};
struct Bf16Weights {
  static constexpr size_t kPanelColumnBytes = 32;
  static F32x16 load_column(const uint8_t* from) { return load_bf16(from); }
};

// Several panels at once when there are few rows: each sum is one chain of dependent FMAs.
template <class Weights, int panels, int rows>
inline void multiply_float_tile(const MatrixTask& task, uint32_t panel, const uint8_t* tile, float* output) {
  F32x16 sums[panels][rows];
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) sums[p][r] = zero_f32();
  }
  const uint8_t* weights = task.panels + panel * task.panel_bytes;
  for (uint32_t k = 0; k < task.columns; ++k) {
    const uint8_t* activations = tile + size_t{k} * rows * 4;
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) {
      F32x16 column = Weights::load_column(weights + static_cast<size_t>(p) * task.panel_bytes +
                                           k * Weights::kPanelColumnBytes);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) {
        sums[p][r] = fma(column, broadcast(load_float(activations + 4 * r)), sums[p][r]);
      }
    }
  }
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) store_panel<rows>(task, panel + static_cast<uint32_t>(p), sums[p], output);
}

template <class Weights, int panels, uint32_t max_rows>
inline uint32_t multiply_float_panels(const MatrixTask& task, uint32_t panel) {
  for (; panel + panels <= task.end_panel; panel += panels) {
    for (uint32_t row = 0; row < task.row_count; row += kTileRows) {
      uint32_t rows = task.row_count - row < kTileRows ? task.row_count - row : kTileRows;
      const uint8_t* tile = task.activations + row * prepared_row_bytes(ActivationFormat::f32, task.columns);
      float* output = task.output + row * task.output_stride;
      with_rows(rows, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        if constexpr (kRows <= max_rows)
          multiply_float_tile<Weights, panels, kRows>(task, panel, tile, output);
      });
    }
  }
  return panel;
}

template <class Weights>
void multiply_float(const MatrixTask& task) {
  uint32_t panel = task.first_panel;
  if constexpr (kFloatPanels > 1) {
    if (task.row_count <= 2) panel = multiply_float_panels<Weights, kFloatPanels, 2>(task, panel);
  }
  multiply_float_panels<Weights, 1, kTileRows>(task, panel);
}

// --- Quantised weights ---

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

struct Q8_0 {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_32;
  template <int rows>
  static void accumulate(const uint8_t* panel, uint32_t columns, const uint8_t* tile, F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < columns / 32; ++block, tile += 40 * rows) {
      const uint8_t* pair = panel + size_t{block / 2} * (64 + 2 * 512);
      const uint8_t* words = pair + 64 + block % 2 * 512;
      I32x16 dots[rows];
      if constexpr (kByteWeightsAreOffset) {
        load_rows<rows>(tile + 36 * rows, dots);
      } else {
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) dots[r] = zero_i32();
      }
#pragma GCC unroll kUnroll
      for (int i = 0; i < 8; ++i) {
        U8x64 weights = byte_weights(words + 64 * i);
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r)
          dots[r] = dot_bytes(dots[r], weights, load_word(tile + 4 * (i * rows + r)));
      }
      add_scaled<rows>(dots, load_f16(pair + block % 2 * 32), tile + 32 * rows, sums);
    }
  }
};

struct Q4_0 {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_32;
  template <int rows>
  static void accumulate(const uint8_t* panel, uint32_t columns, const uint8_t* tile, F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < columns / 32; ++block, tile += 40 * rows) {
      const uint8_t* pair = panel + size_t{block / 2} * (64 + 2 * 256);
      const uint8_t* words = pair + 64 + block % 2 * 256;
      I32x16 dots[rows];
      load_rows<rows>(tile + 36 * rows, dots);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) dots[r] = shift_right_arithmetic<4>(dots[r]);  // -128 sums to -8 sums
#pragma GCC unroll kUnroll
      for (int i = 0; i < 4; ++i) {
        U8x64 both = load_bytes(words + 64 * i);
        dot_small_rows<rows>(low_nibbles(both), tile + 4 * (i * rows), dots);
        dot_small_rows<rows>(high_nibbles(both), tile + 4 * ((i + 4) * rows), dots);
      }
      add_scaled<rows>(dots, load_f16(pair + block % 2 * 32), tile + 32 * rows, sums);
    }
  }
};

struct Q4_K {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;

  template <bool high, int rows>
  static void add_sub(const uint8_t* words, const uint8_t* activations, I32x16 scales,
                      I32x16 (&totals)[rows]) {
    I32x16 dots[rows];
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) dots[r] = zero_i32();
#pragma GCC unroll kUnroll
    for (int i = 0; i < 8; ++i) {
      U8x64 both = load_bytes(words + 64 * i);
      dot_small_rows<rows>(high ? high_nibbles(both) : low_nibbles(both), activations + 4 * (i * rows), dots);
    }
    add_sub_block<rows>(dots, scales, totals);
  }

  template <int rows>
  static void accumulate(const uint8_t* panel, uint32_t columns, const uint8_t* tile, F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < columns / 256; ++block, panel += 2368, tile += 372 * rows) {
      prefetch_block<rows, 2368>(panel + 2 * 2368);
      const uint8_t *scales = panel + 64, *mins = panel + 192, *words = panel + 320;
      const uint8_t *activation_scales = tile + 256 * rows, *pair_sums = tile + 324 * rows;
      I32x16 totals[rows];
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) totals[r] = zero_i32();
      for (int chunk = 0; chunk < 4; ++chunk) {
        const uint8_t* activations = tile + chunk * 64 * rows;
        add_sub<false, rows>(words + chunk * 512, activations, load_u8(scales + chunk * 32), totals);
        add_sub<true, rows>(words + chunk * 512, activations + 32 * rows, load_u8(scales + chunk * 32 + 16),
                            totals);
      }
      add_scaled<rows>(totals, load_f16(panel), activation_scales, sums);
      F32x16 min_scales = load_f16(panel + 32);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) {
        I32x16 total = zero_i32();
#pragma GCC unroll kUnroll
        for (int p = 0; p < 4; ++p)
          total = dot_pairs(total, mins + 32 * p, load_word(pair_sums + 4 * (p * rows + r)));
        F32x16 scale = multiply(min_scales, broadcast(load_float(activation_scales + 4 * r)));
        sums[r] = negative_fma(to_f32(total), scale, sums[r]);
      }
    }
  }
};

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
  static void accumulate(const uint8_t* panel, uint32_t columns, const uint8_t* tile, F32x16 (&sums)[rows]) {
    for (uint32_t block = 0; block < columns / 256; ++block, panel += 3392, tile += 372 * rows) {
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
        Type::template accumulate<kRows>(weights, task.columns, tile, sums);
        store_panel<kRows>(task, panel, sums, output);
      });
    }
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
