// Tile products of weights in blocks of 32: a block is one step of a tile, and its dot products are scaled
// one by one. The order of operations is that of sixteen_lanes/blocks_of_32.h.
#pragma once

#include "engine/cpu/amx/products.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kChunkBlocks = 16;  // unpacked at once
constexpr size_t kCodeBytes = 512;     // of an unpacked block
constexpr uint32_t kRingTiles = 4;     // of dot products on their way

struct alignas(64) Chunk32 {
  uint8_t codes[kChunkBlocks][kCodeBytes];
  float scales[kChunkBlocks][16];
  float biases[kChunkBlocks][16];
  uint32_t first;  // block of the row
  uint32_t count;
};

// Each of these makes 8 words x16 of codes from a block's words.

struct FourBitCodes {
  static constexpr size_t kBytes = 256;
  template <int zero>
  static void unpack(const uint8_t* words, uint8_t* to) {
    for (size_t i = 0; i < 4; ++i) {
      const U8x64 both = load_bytes(words + 64 * i);
      store_bytes(to + 64 * i, subtract_bytes(low_nibbles(both), zero));
      store_bytes(to + 64 * (i + 4), subtract_bytes(high_nibbles(both), zero));
    }
  }
};

struct FiveBitCodes {
  static constexpr size_t kBytes = 320;
  template <int zero, int word>
  static void unpack_word(const uint8_t* words, U8x64 fifth, uint8_t* to) {
    const U8x64 both = load_bytes(words + 64 * word);
    const U8x64 low = join_bit<word, 4>(low_nibbles(both), fifth);
    const U8x64 high = join_bit<word + 4, 4>(high_nibbles(both), fifth);
    store_bytes(to + 64 * word, subtract_bytes(low, zero));
    store_bytes(to + 64 * (word + 4), subtract_bytes(high, zero));
  }
  template <int zero>
  static void unpack(const uint8_t* words, uint8_t* to) {
    const U8x64 fifth = load_bytes(words + 256);
    unpack_word<zero, 0>(words, fifth, to);
    unpack_word<zero, 1>(words, fifth, to);
    unpack_word<zero, 2>(words, fifth, to);
    unpack_word<zero, 3>(words, fifth, to);
  }
};

struct EightBitCodes {
  static constexpr size_t kBytes = 512;
  template <int zero>
  static void unpack(const uint8_t* words, uint8_t* to) {
    for (size_t i = 0; i < 8; ++i) store_bytes(to + 64 * i, subtract_bytes(load_bytes(words + 64 * i), zero));
  }
};

struct Iq4Codes {  // kIq4Codes are 128 too high
  static constexpr size_t kBytes = 256;
  template <int zero>
  static void unpack(const uint8_t* words, uint8_t* to) {
    for (size_t i = 0; i < 4; ++i) {
      const U8x64 both = load_bytes(words + 64 * i);
      store_bytes(to + 64 * i, subtract_bytes(look_up(kIq4Codes, low_nibbles(both)), zero));
      store_bytes(to + 64 * (i + 4), subtract_bytes(look_up(kIq4Codes, high_nibbles(both)), zero));
    }
  }
};

// Pairs of blocks behind two scales; weight = scale * (code - zero).
template <class Codes, int zero>
struct SymmetricTiles {
  static constexpr bool kSigned = true;
  static void unpack(const MatrixTask&, const uint8_t* panel, Chunk32& chunk) {
    constexpr size_t kPairBytes = 64 + 2 * Codes::kBytes;
    for (uint32_t b = 0; b < chunk.count; ++b) {
      const uint32_t block = chunk.first + b;
      const uint8_t* pair = panel + size_t{block / 2} * kPairBytes;
      if (block % 2 == 0) prefetch(pair + 4 * kPairBytes, kPairBytes);
      store(chunk.scales[b], load_f16(pair + block % 2 * 32));
      Codes::template unpack<zero>(pair + 64 + block % 2 * Codes::kBytes, chunk.codes[b]);
    }
  }
};

// Groups of blocks behind a scale and a bias; weight = scale * code + bias.
template <class Codes, class Scales>
struct AffineTiles {
  static constexpr bool kSigned = false;
  static void unpack(const MatrixTask& task, const uint8_t* panel, Chunk32& chunk) {
    const uint32_t group_blocks = task.group_columns / 32;
    const size_t group_bytes = 2 * Scales::kBytes + group_blocks * Codes::kBytes;
    for (uint32_t b = 0; b < chunk.count; ++b) {
      const uint32_t block = chunk.first + b;
      const uint8_t* group = panel + size_t{block / group_blocks} * group_bytes;
      const uint8_t* words = group + 2 * Scales::kBytes + block % group_blocks * Codes::kBytes;
      prefetch(words + 8 * Codes::kBytes, Codes::kBytes);
      store(chunk.scales[b], Scales::load_scales(group));
      store(chunk.biases[b], Scales::load_scales(group + Scales::kBytes));
      Codes::template unpack<0>(words, chunk.codes[b]);
    }
  }
};

inline TileShapes shapes_of_32() {
  TileShapes shapes;  // 0, 1: dot products; 2, 3: activations; 4, 5: weights
  for (uint32_t tile = 0; tile < 6; ++tile) {
    shapes.rows[tile] = tile < 4 ? 16 : 8;
    shapes.row_bytes[tile] = tile == 2 || tile == 3 ? 32 : 64;
  }
  return shapes;
}

template <bool is_signed, int which>
inline void dot_block(const uint8_t* activations, const uint8_t* codes, TileInts& dots) {
  tile_zero<which>();
  tile_load<2 + which>(activations, 32);
  tile_load<4 + which>(codes, 64);
  if constexpr (is_signed) {
    tile_dot_signed<which, 2 + which, 4 + which>();
  } else {
    tile_dot_unsigned<which, 2 + which, 4 + which>();
  }
  tile_store<which>(&dots, kTileStride);
}

template <bool biased>
[[gnu::always_inline]] inline void add_block(const Chunk32& chunk, uint32_t b, const TileInts& dots,
                                             const Tile32& tile, F32x16 (&sums)[kAmxRows]) {
  const uint32_t block = chunk.first + b;
  const F32x16 scales = load(chunk.scales[b]);
  const F32x16 biases = biased ? load(chunk.biases[b]) : zero_f32();
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kAmxRows; ++r) {
    const F32x16 scale = multiply(scales, broadcast(tile.scale(block, r)));
    sums[r] = fma(to_f32(load_row(dots, r)), scale, sums[r]);
    if constexpr (biased) sums[r] = fma(biases, broadcast(tile.total(block, r)), sums[r]);
  }
}

// Two blocks are always on their way through the tiles while a third is scaled.
template <class Type>
void add_chunk(const Chunk32& chunk, const Tile32& tile, TileSums& to) {
  TileInts dots[kRingTiles];
  auto start = [&](uint32_t b) {
    if (b >= chunk.count) return;
    const uint8_t* activations = tile.block_values(chunk.first + b);
    if (b % 2 == 0) {
      dot_block<Type::kSigned, 0>(activations, chunk.codes[b], dots[b % kRingTiles]);
    } else {
      dot_block<Type::kSigned, 1>(activations, chunk.codes[b], dots[b % kRingTiles]);
    }
  };
  F32x16 sums[kAmxRows];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kAmxRows; ++r) sums[r] = load(to.values[r]);
  start(0);
  start(1);
  for (uint32_t b = 0; b < chunk.count; ++b) {
    start(b + 2);
    add_block<!Type::kSigned>(chunk, b, dots[b % kRingTiles], tile, sums);
  }
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kAmxRows; ++r) store(to.values[r], sums[r]);
}

template <PanelType type, class Type>
struct Product32 {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_32;
  static constexpr PanelType kPanelType = type;

  static void run_group(const MatrixTask& task, const RowGroup& group, uint32_t panel) {
    TileSums sums[kGroupTiles];
    __builtin_memset(sums, 0, group.tiles() * sizeof(TileSums));
    Chunk32 chunk;
    const uint32_t blocks = task.columns / 32;
    for (chunk.first = 0; chunk.first < blocks; chunk.first += kChunkBlocks) {
      chunk.count = smaller(kChunkBlocks, blocks - chunk.first);
      Type::unpack(task, task.panels + panel * task.panel_bytes, chunk);
      for (uint32_t t = 0; t < group.tiles(); ++t) {
        const uint32_t row = group.first + t * kAmxRows;
        const uint8_t* tile = task.activations + row * prepared_row_bytes(kActivations, task.columns);
        add_chunk<Type>(chunk, Tile32(tile, group.tile_rows(t), task.columns), sums[t]);
      }
    }
    store_sums(task, group, panel, sums);
  }

  static void run(const MatrixTask& task, uint32_t rows) {
    const TileScope scope(shapes_of_32());
    for (uint32_t panel = task.first_panel; panel < task.end_panel; ++panel) {
      for (uint32_t row = 0; row < rows; row += kGroupRows) {
        run_group(task, {row, smaller(kGroupRows, rows - row)}, panel);
      }
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu
