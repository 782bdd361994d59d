// Tile products of weights in blocks of 256, see planes.h. Two tiles of rows go together through four tiles
// of dot products, two for each: of both planes, or of the even and odd quarters of the only one. While they
// do, the pair before is scaled, a quarter of it at each step. The order of operations is that of
// sixteen_lanes/blocks_of_256.h.
#pragma once

#include "engine/cpu/amx/planes.h"

namespace shoal::engine::cpu {
namespace {

struct PairDots {
  TileInts dots[2][2];  // [tile of rows][plane, or quarters]
};

struct RowPair {
  const uint8_t* tiles[2];
  uint32_t rows[2];  // the second may be 0
  TileSums* sums;    // of both
};

// A pair whose dot products are on their way.
struct Pending {
  const PairDots* dots = nullptr;
  const Planes* planes;
  RowPair pair;
  uint32_t block;
};

inline TileShapes shapes_of_256() {
  TileShapes shapes;  // 0-3: dot products, two for each tile of rows; 4, 5: activations; 6, 7: weights
  for (uint32_t tile = 0; tile < kTileCount; ++tile) {
    shapes.rows[tile] = 16;
    shapes.row_bytes[tile] = 64;
  }
  return shapes;
}

// What minima take from a row's sums; held in registers over rows.
template <class Type>
struct Minima {
  I32x16 words[Type::kMinima];
  F32x16 scales;

  explicit Minima(const Planes& planes) : scales(load(planes.minimum_scales)) {
#pragma GCC unroll 8
    for (uint32_t p = 0; p < Type::kMinima; ++p) {
      words[p] = load_words(reinterpret_cast<const uint8_t*>(planes.minima[p]));
    }
  }
  F32x16 subtract_from(F32x16 sum, const Tile256& tile, uint32_t row) const {
    I32x16 total = zero_i32();
#pragma GCC unroll 8
    for (uint32_t p = 0; p < Type::kMinima; ++p) {
      total = dot_pairs(total, words[p], Type::kSumsOf16 ? tile.sums_of_16(p, row) : tile.sums_of_32(p, row));
    }
    return negative_fma(to_f32(total), multiply(scales, broadcast(tile.scale(row))), sum);
  }
};
template <class Type>
  requires(Type::kMinima == 0)
struct Minima<Type> {
  explicit Minima(const Planes&) {}
  F32x16 subtract_from(F32x16 sum, const Tile256&, uint32_t) const { return sum; }
};

// Scales rows 8 * (quarter % 2) .. + 8 of tile quarter / 2.
template <class Type>
inline void add_quarter(const Pending& pending, uint32_t quarter) {
  const uint32_t which = quarter / 2, first = 8 * (quarter % 2);
  const uint32_t end = smaller(first + 8, pending.pair.rows[which]);
  const TileInts(&dots)[2] = pending.dots->dots[which];
  const Tile256 tile(pending.pair.tiles[which], pending.pair.rows[which], pending.block);
  TileSums& sums = pending.pair.sums[which];
  const F32x16 scales = load(pending.planes->scales);
  const Minima<Type> minima(*pending.planes);
  for (uint32_t row = first; row < end; ++row) {
    const I32x16 dot = Type::join(load_row(dots[0], row), load_row(dots[1], row));
    const F32x16 scale = multiply(scales, broadcast(tile.scale(row)));
    const F32x16 sum = fma(to_f32(dot), scale, load(sums.values[row]));
    store(sums.values[row], minima.subtract_from(sum, tile, row));
  }
}

template <class Type>
inline void add_pending(const Pending& pending) {
  if (pending.dots == nullptr) return;
  for (uint32_t quarter = 0; quarter < 4; ++quarter) add_quarter<Type>(pending, quarter);
}

template <bool is_signed, int sum, int left, int right>
inline void tile_dot() {
  if constexpr (is_signed) {
    tile_dot_signed<sum, left, right>();
  } else {
    tile_dot_unsigned<sum, left, right>();
  }
}

// Values 64 * step .. + 64 of a tile of rows: its dot products are tiles 2 * which and 2 * which + 1.
template <class Type, int which, uint32_t step>
inline void dot_step(const Tile256& tile) {
  tile_load<4 + which>(tile.quarter(step), 64);
  if constexpr (Type::kTwoPlanes) {
    tile_dot<Type::kSigned, 2 * which, 4 + which, 6>();
    tile_dot<Type::kSecondSigned, 2 * which + 1, 4 + which, 7>();
  } else {
    tile_dot<Type::kSigned, 2 * which + step % 2, 4 + which, 6 + step % 2>();
  }
}

template <class Type, uint32_t step>
inline void pair_step(const Planes& planes, const RowPair& pair, uint32_t block, const Pending& before) {
  if constexpr (Type::kTwoPlanes) {
    tile_load<6>(planes.first + 1024 * step, 64);
    tile_load<7>(planes.second + 1024 * step, 64);
  } else {
    tile_load<6 + step % 2>(planes.first + 1024 * step, 64);
  }
  dot_step<Type, 0, step>(Tile256(pair.tiles[0], pair.rows[0], block));
  if (pair.rows[1] != 0) dot_step<Type, 1, step>(Tile256(pair.tiles[1], pair.rows[1], block));
  if (before.dots != nullptr) add_quarter<Type>(before, step);
}

template <class Type>
inline void run_pair(const Planes& planes, const RowPair& pair, uint32_t block, const Pending& before,
                     PairDots& to) {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  pair_step<Type, 0>(planes, pair, block, before);
  pair_step<Type, 1>(planes, pair, block, before);
  pair_step<Type, 2>(planes, pair, block, before);
  pair_step<Type, 3>(planes, pair, block, before);
  tile_store<0>(&to.dots[0][0], kTileStride);
  tile_store<1>(&to.dots[0][1], kTileStride);
  if (pair.rows[1] == 0) return;
  tile_store<2>(&to.dots[1][0], kTileStride);
  tile_store<3>(&to.dots[1][1], kTileStride);
}

template <PanelType type, class Type>
struct Product256 {
  static constexpr ActivationFormat kActivations = ActivationFormat::q8_256;
  static constexpr PanelType kPanelType = type;

  static RowPair pair_of(const MatrixTask& task, const RowGroup& group, uint32_t tile, TileSums* sums) {
    const size_t tile_bytes = kAmxRows * prepared_row_bytes(kActivations, task.columns);
    const uint8_t* first = task.activations + (group.first / kAmxRows + tile) * tile_bytes;
    const bool both = tile + 1 < group.tiles();
    return {.tiles = {first, first + tile_bytes},
            .rows = {group.tile_rows(tile), both ? group.tile_rows(tile + 1) : 0},
            .sums = sums + tile};
  }

  static void unpack(const uint8_t* panel, Planes& planes) {
    prefetch(panel + 2 * Type::kBytes, Type::kBytes);
    store(planes.scales, load_f16(panel));
    if constexpr (Type::kMinima > 0) store(planes.minimum_scales, load_f16(panel + 32));
    Type::unpack(panel, planes);
  }

  static void run_group(const MatrixTask& task, const RowGroup& group, uint32_t panel) {
    TileSums sums[kGroupTiles];
    __builtin_memset(sums, 0, group.tiles() * sizeof(TileSums));
    Planes planes[2];  // one may still be pending
    PairDots dots[2];
    Pending pending;
    uint32_t turn = 0;
    const uint8_t* weights = task.panels + panel * task.panel_bytes;
    for (uint32_t block = 0; block < task.columns / 256; ++block) {
      Planes& unpacked = planes[block % 2];
      unpack(weights + block * Type::kBytes, unpacked);
      for (uint32_t tile = 0; tile < group.tiles(); tile += 2, ++turn) {
        const RowPair pair = pair_of(task, group, tile, sums);
        run_pair<Type>(unpacked, pair, block, pending, dots[turn % 2]);
        pending = {&dots[turn % 2], &unpacked, pair, block};
      }
    }
    add_pending<Type>(pending);
    store_sums(task, group, panel, sums);
  }

  static void run(const MatrixTask& task, uint32_t rows) {
    const TileScope scope(shapes_of_256());
    for (uint32_t panel = task.first_panel; panel < task.end_panel; ++panel) {
      for (uint32_t row = 0; row < rows; row += kGroupRows) {
        run_group(task, {row, smaller(kGroupRows, rows - row)}, panel);
      }
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu
