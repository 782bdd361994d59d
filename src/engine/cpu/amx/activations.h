// Activations as tiles read them: a value's row is a tile's row. The lanes are those of AVX-512.
//
// A tile of R rows that uses_tiles(), within the bytes that kernel_table.h gives it:
//   q8_32:   values [blocks of 32][R][32] int8, scales [blocks][R] f32, totals [blocks][R] f32 = scale * sum
//   q8_256:  per block of 256: values [4][R][64] int8, scales [R] f32, sums of 32 [4][R], sums of 16 [8][R],
//            both as two int16
// Any other tile is what the sixteen lanes make of it, in steps of their own kTileRows.
#pragma once

#include "engine/cpu/avx512/lanes.h"
#include "engine/cpu/sixteen_lanes/table.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kAmxRows = 16;  // of a tile register
// Below this, lanes are as fast.
constexpr uint32_t kLeastAmxRows = 6;

// A tile register always takes sixteen rows, so what it takes past the last row must still be the tile's.
// True of sixteen rows.
inline bool uses_tiles(ActivationFormat format, uint32_t rows, uint32_t columns) {
  if (rows < kLeastAmxRows) return false;
  if (format == ActivationFormat::f32) return false;
  if (format == ActivationFormat::q8_256) return 3 * 64 * rows + 16 * 64 <= 372 * rows;
  const size_t blocks = columns / 32;
  return 32 * rows * (blocks - 1) + 16 * 32 <= 44 * rows * blocks;
}

struct Tile32 {
  const uint8_t* values;
  const uint8_t* scales;
  const uint8_t* totals;
  size_t rows;

  Tile32(const uint8_t* tile, size_t row_count, uint32_t columns)
      : values(tile),
        scales(tile + row_count * columns),
        totals(scales + row_count * columns / 8),
        rows(row_count) {}
  const uint8_t* block_values(size_t block) const { return values + block * rows * 32; }
  float scale(size_t block, size_t row) const { return load_float(scales + 4 * (block * rows + row)); }
  float total(size_t block, size_t row) const { return load_float(totals + 4 * (block * rows + row)); }
};

struct Tile256 {
  const uint8_t* block;
  size_t rows;

  Tile256(const uint8_t* tile, size_t row_count, size_t index)
      : block(tile + index * row_count * 372), rows(row_count) {}
  const uint8_t* quarter(size_t step) const { return block + step * rows * 64; }
  float scale(size_t row) const { return load_float(block + 256 * rows + 4 * row); }
  int32_t sums_of_32(size_t pair, size_t row) const {
    return load_word(block + 260 * rows + 4 * (pair * rows + row));
  }
  int32_t sums_of_16(size_t pair, size_t row) const {
    return load_word(block + 276 * rows + 4 * (pair * rows + row));
  }
};

template <ActivationFormat format>
void prepare_for_lanes(const float* const* rows, uint32_t row_count, uint32_t columns, uint8_t* tile) {
  for (uint32_t row = 0; row < row_count; row += kTable.tile_rows) {
    const uint32_t left = row_count - row;
    kTable.prepare[static_cast<size_t>(format)](rows + row, left < kTable.tile_rows ? left : kTable.tile_rows,
                                                columns, tile + row * prepared_row_bytes(format, columns));
  }
}

void prepare_tile_32(const float* const* rows, uint32_t row_count, uint32_t columns, uint8_t* tile) {
  if (!uses_tiles(ActivationFormat::q8_32, row_count, columns)) {
    return prepare_for_lanes<ActivationFormat::q8_32>(rows, row_count, columns, tile);
  }
  uint8_t* scales = tile + size_t{row_count} * columns;
  uint8_t* totals = scales + size_t{row_count} * columns / 8;
  for (uint32_t r = 0; r < row_count; ++r) {
    for (uint32_t k = 0; k < columns; k += 32) {
      const size_t place = size_t{k} / 32 * row_count + r;
      auto* to = reinterpret_cast<int8_t*>(tile + 32 * place);
      const BlockScale scale = block_scale(rows[r] + k, 32);
      int32_t sum = quantise_16(rows[r] + k, scale.inverse, to);
      sum += quantise_16(rows[r] + k + 16, scale.inverse, to + 16);
      put_float(scales + 4 * place, scale.scale);
      put_float(totals + 4 * place, scale.scale * static_cast<float>(sum));
    }
  }
}

void prepare_tile_256(const float* const* rows, uint32_t row_count, uint32_t columns, uint8_t* tile) {
  if (!uses_tiles(ActivationFormat::q8_256, row_count, columns)) {
    return prepare_for_lanes<ActivationFormat::q8_256>(rows, row_count, columns, tile);
  }
  const size_t step = size_t{4} * row_count;  // bytes of a word of each row
  for (size_t r = 0; r < row_count; ++r) {
    uint8_t* block = tile;
    for (uint32_t k = 0; k < columns; k += 256, block += 93 * step) {
      int32_t sums[16];
      const BlockScale scale = block_scale(rows[r] + k, 256);
      for (size_t i = 0; i < 16; ++i) {
        uint8_t* to = block + i / 4 * 16 * step + 64 * r + i % 4 * 16;
        sums[i] = quantise_16(rows[r] + k + 16 * i, scale.inverse, reinterpret_cast<int8_t*>(to));
      }
      uint8_t* words = block + 64 * step + 4 * r;
      put_float(words, scale.scale);
      for (size_t p = 0; p < 4; ++p) {
        put_pair(words + (1 + p) * step, sums[4 * p] + sums[4 * p + 1], sums[4 * p + 2] + sums[4 * p + 3]);
      }
      for (size_t p = 0; p < 8; ++p) put_pair(words + (5 + p) * step, sums[2 * p], sums[2 * p + 1]);
    }
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
