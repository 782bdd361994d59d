// Products of weights that meet f32 activations. Include after matrix.h.
//
// The order of operations:
//   f32, f16, bf16:  sum = fma(weight[k], activation[k], sum) for k = 0, 1, ..., the weight widened exactly.
//   f8, mxfp4:       per group of columns that share a scale: part = fma(weight[k], activation[k], part) from
//                    zero for k = 0, 1, ..., the weight without its scale and widened exactly (f8: times
//                    2^-8); then sum = fma(part, scale, sum) (f8: the scale times 2^8).
#pragma once

#include "engine/cpu/sixteen_lanes/matrix.h"

namespace shoal::engine::cpu {
namespace {

struct F32Weights {
  static constexpr bool kScaled = false;
  static constexpr size_t kPanelColumnBytes = 64;
  static F32x16 load_column(const uint8_t* from) { return load(reinterpret_cast<const float*>(from)); }
};
struct F16Weights {
  static constexpr bool kScaled = false;
  static constexpr size_t kPanelColumnBytes = 32;
  static F32x16 load_column(const uint8_t* from) { return load_f16(from); }
};
struct Bf16Weights {
  static constexpr bool kScaled = false;
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

// --- Weights with a scale for a group of neighbours ---

struct F8Weights {
  static constexpr bool kScaled = true;
  static constexpr uint32_t kStepColumns = 1;
  using Step = F32x16;
  static uint32_t group_columns(const MatrixTask& task) { return task.group_columns; }
  static const uint8_t* scale(const uint8_t* panel, uint32_t group, uint32_t columns) {
    return panel + group * (64 + size_t{16} * columns);
  }
  static const uint8_t* codes(const uint8_t* panel, uint32_t group, uint32_t columns) {
    return scale(panel, group, columns) + 64;
  }
  static F32x16 load_scale(const uint8_t* from) { return load(reinterpret_cast<const float*>(from)); }
  static Step load_step(const uint8_t* codes, uint32_t step) { return load_f8(codes + size_t{16} * step); }
  static F32x16 next_column(Step& step) { return step; }
};

struct Mxfp4Weights {
  static constexpr bool kScaled = true;
  static constexpr uint32_t kStepColumns = 8;
  using Step = I32x16;
  static uint32_t group_columns(const MatrixTask&) { return 32; }
  static const uint8_t* scale(const uint8_t* panel, uint32_t group, uint32_t) {
    return panel + size_t{group / 4} * (64 + 4 * 256) + group % 4 * 16;
  }
  static const uint8_t* codes(const uint8_t* panel, uint32_t group, uint32_t) {
    return panel + size_t{group / 4} * (64 + 4 * 256) + 64 + group % 4 * 256;
  }
  static F32x16 load_scale(const uint8_t* from) {  // 2^(e - 127); 0 means the subnormal 2^-127
    return from_bits(maximum(shift_left<23>(load_u8(from)), broadcast(int32_t{0x00400000})));
  }
  static Step load_step(const uint8_t* codes, uint32_t step) { return load_words(codes + 64 * step); }
  static F32x16 next_column(Step& step) {
    F32x16 column = fp4_low(step);
    step = shift_right_arithmetic<4>(step);
    return column;
  }
};

// parts[p][r] of the columns of one group.
template <class Weights, int panels, int rows>
inline void add_group(const uint8_t* const (&codes)[panels], uint32_t columns, const uint8_t* activations,
                      F32x16 (&parts)[panels][rows]) {
  for (uint32_t step = 0; step < columns / Weights::kStepColumns; ++step) {
    typename Weights::Step steps[panels];
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) steps[p] = Weights::load_step(codes[p], step);
#pragma GCC unroll kUnroll
    for (uint32_t column = 0; column < Weights::kStepColumns; ++column, activations += 4 * rows) {
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) {
        F32x16 weights = Weights::next_column(steps[p]);
#pragma GCC unroll kUnroll
        for (int r = 0; r < rows; ++r) {
          parts[p][r] = fma(weights, broadcast(load_float(activations + 4 * r)), parts[p][r]);
        }
      }
    }
  }
}

template <class Weights, int panels, int rows>
inline void multiply_scaled_tile(const MatrixTask& task, uint32_t panel, const uint8_t* tile, float* output) {
  F32x16 sums[panels][rows];
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) sums[p][r] = zero_f32();
  }
  const uint32_t size = Weights::group_columns(task);
  for (uint32_t first = 0, group = 0; first < task.columns; first += size, ++group) {
    F32x16 parts[panels][rows];
    const uint8_t* codes[panels];
    const uint8_t* weights = task.panels + panel * task.panel_bytes;
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) {
      codes[p] = Weights::codes(weights + static_cast<size_t>(p) * task.panel_bytes, group, size);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) parts[p][r] = zero_f32();
    }
    const uint32_t columns = task.columns - first < size ? task.columns - first : size;
    add_group<Weights, panels, rows>(codes, columns, tile + size_t{first} * rows * 4, parts);
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) {
      F32x16 scales = Weights::load_scale(
          Weights::scale(weights + static_cast<size_t>(p) * task.panel_bytes, group, size));
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) sums[p][r] = fma(parts[p][r], scales, sums[p][r]);
    }
  }
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) store_panel<rows>(task, panel + static_cast<uint32_t>(p), sums[p], output);
}

// --- Both ---

template <class Weights, int panels, uint32_t max_rows>
inline uint32_t multiply_float_panels(const MatrixTask& task, uint32_t panel) {
  for (; panel + panels <= task.end_panel; panel += panels) {
    for (uint32_t row = 0; row < task.row_count; row += kTileRows) {
      uint32_t rows = task.row_count - row < kTileRows ? task.row_count - row : kTileRows;
      const uint8_t* tile = task.activations + row * prepared_row_bytes(ActivationFormat::f32, task.columns);
      float* output = task.output + row * task.output_stride;
      with_rows(rows, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        if constexpr (kRows > max_rows) {
          __builtin_unreachable();
        } else if constexpr (Weights::kScaled) {
          multiply_scaled_tile<Weights, panels, kRows>(task, panel, tile, output);
        } else {
          multiply_float_tile<Weights, panels, kRows>(task, panel, tile, output);
        }
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

}  // namespace
}  // namespace shoal::engine::cpu
