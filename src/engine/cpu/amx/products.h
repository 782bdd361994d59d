// What all products over tiles share. Include after hardware_tiles.h or model_tiles.h.
//
// A C tile holds the exact integer dot products of sixteen activation rows (its rows) and a panel's sixteen
// outputs. The left factor are activations as activations.h lays them out. The right one are weights as int8
// or uint8 in words of four values x16: the panels' words, unpacked once into a scratch in the first-level
// cache for all rows of a group. Sums are floats in the portable order of operations
// (sixteen_lanes/blocks_of_32.h and blocks_of_256.h).
#pragma once

#include "engine/cpu/amx/activations.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kGroupRows = 128;  // that meet what has been unpacked
constexpr uint32_t kGroupTiles = kGroupRows / kAmxRows;
constexpr size_t kTileStride = 64;

struct alignas(64) TileInts {
  int32_t values[kAmxRows][16];
};
struct alignas(64) TileSums {
  float values[kAmxRows][16];
};

inline I32x16 load_row(const TileInts& ints, uint32_t row) {
  return load_words(reinterpret_cast<const uint8_t*>(ints.values[row]));
}
inline U8x64 subtract_bytes(U8x64 value, int by) {
  return {_mm512_sub_epi8(value.lanes, _mm512_set1_epi8(static_cast<char>(by)))};
}

// The rows of a task that tiles compute: `count` of them from `first` on.
struct RowGroup {
  uint32_t first;
  uint32_t count;

  uint32_t tiles() const { return (count + kAmxRows - 1) / kAmxRows; }
  uint32_t tile_rows(uint32_t tile) const {
    const uint32_t left = count - tile * kAmxRows;
    return left < kAmxRows ? left : kAmxRows;
  }
};

inline void store_sums(const MatrixTask& task, const RowGroup& group, uint32_t panel, const TileSums* sums) {
  for (uint32_t row = 0; row < group.count; ++row) {
    const F32x16 sum = load(sums[row / kAmxRows].values[row % kAmxRows]);
    store_outputs(task, panel, sum, task.output + (group.first + row) * task.output_stride);
  }
}

// Lanes compute the rows that tiles do not; those start a tile.
template <PanelType type>
inline void multiply_with_lanes(MatrixTask task, ActivationFormat format, uint32_t first, uint32_t count) {
  task.activations += first * prepared_row_bytes(format, task.columns);
  task.output += first * task.output_stride;
  task.row_count = count;
  kTable.multiply[static_cast<size_t>(type)](task);
}

template <class Product>
void multiply_with_tiles(const MatrixTask& task) {
  const uint32_t tail = task.row_count % kAmxRows;
  uint32_t rows = task.row_count;
  if (tail != 0 && !uses_tiles(Product::kActivations, tail, task.columns)) rows -= tail;
  if (rows != 0) Product::run(task, rows);
  if (rows < task.row_count) {
    multiply_with_lanes<Product::kPanelType>(task, Product::kActivations, rows, task.row_count - rows);
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
