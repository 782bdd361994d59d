// What hardware_tiles.h does, in plain C++, for tests on machines without AMX. Whatever the processor would
// refuse traps.
#pragma once

#include "engine/cpu/amx/tile_shapes.h"

namespace shoal::engine::cpu {
namespace {

struct ModelTiles {
  bool configured = false;
  TileShapes shapes;
  uint8_t bytes[kTileCount][16][64] = {};
};
thread_local ModelTiles model_tiles;

inline void require(bool allowed) {
  if (!allowed) __builtin_trap();
}
inline void require_tile(int tile) {
  require(model_tiles.configured && tile < static_cast<int>(kTileCount));
  require(model_tiles.shapes.rows[tile] > 0 && model_tiles.shapes.row_bytes[tile] > 0);
}

inline void model_configure(const TileShapes& shapes) {
  require(!model_tiles.configured && shapes.palette == 1 && shapes.start_row == 0);
  for (uint8_t byte : shapes.reserved) require(byte == 0);
  for (uint32_t tile = 0; tile < 16; ++tile) {
    const uint32_t rows = shapes.rows[tile], row_bytes = shapes.row_bytes[tile];
    require(rows <= 16 && row_bytes <= 64 && row_bytes % 4 == 0 && (rows == 0) == (row_bytes == 0));
    require(tile < kTileCount || rows == 0);
  }
  model_tiles = {};
  model_tiles.shapes = shapes;
  model_tiles.configured = true;
}
inline void model_release() {
  model_tiles.configured = false;
}
inline void model_zero(int tile) {
  require_tile(tile);
  __builtin_memset(model_tiles.bytes[tile], 0, sizeof(model_tiles.bytes[tile]));
}
inline void model_load(int tile, const void* from, size_t stride) {
  model_zero(tile);
  const auto* bytes = static_cast<const uint8_t*>(from);
  for (uint32_t row = 0; row < model_tiles.shapes.rows[tile]; ++row) {
    __builtin_memcpy(model_tiles.bytes[tile][row], bytes + row * stride, model_tiles.shapes.row_bytes[tile]);
  }
}
inline void model_store(int tile, void* to, size_t stride) {
  require_tile(tile);
  auto* bytes = static_cast<uint8_t*>(to);
  for (uint32_t row = 0; row < model_tiles.shapes.rows[tile]; ++row) {
    __builtin_memcpy(bytes + row * stride, model_tiles.bytes[tile][row], model_tiles.shapes.row_bytes[tile]);
  }
}
template <class Weight>
inline void model_dot(int sum, int left, int right) {
  require(sum != left && left != right && sum != right);
  require_tile(sum);
  require_tile(left);
  require_tile(right);
  const TileShapes& shapes = model_tiles.shapes;
  require(shapes.rows[sum] == shapes.rows[left] && shapes.row_bytes[sum] == shapes.row_bytes[right]);
  require(shapes.row_bytes[left] == 4 * shapes.rows[right]);
  for (uint32_t m = 0; m < shapes.rows[sum]; ++m) {
    for (uint32_t n = 0; n < shapes.row_bytes[sum] / 4u; ++n) {
      uint32_t total;
      __builtin_memcpy(&total, &model_tiles.bytes[sum][m][4 * n], 4);
      for (uint32_t k = 0; k < shapes.row_bytes[left]; ++k) {
        const auto activation = static_cast<int8_t>(model_tiles.bytes[left][m][k]);
        const auto weight = static_cast<Weight>(model_tiles.bytes[right][k / 4][4 * n + k % 4]);
        total += static_cast<uint32_t>(int32_t{activation} * int32_t{weight});
      }
      __builtin_memcpy(&model_tiles.bytes[sum][m][4 * n], &total, 4);
    }
  }
}

class TileScope {
 public:
  explicit TileScope(const TileShapes& shapes) { model_configure(shapes); }
  ~TileScope() { model_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

template <int tile>
inline void tile_zero() {
  model_zero(tile);
}
template <int tile>
inline void tile_load(const void* from, size_t stride) {
  model_load(tile, from, stride);
}
template <int tile>
inline void tile_store(void* to, size_t stride) {
  model_store(tile, to, stride);
}
template <int sum, int left, int right>
inline void tile_dot_signed() {
  model_dot<int8_t>(sum, left, right);
}
template <int sum, int left, int right>
inline void tile_dot_unsigned() {
  model_dot<uint8_t>(sum, left, right);
}

}  // namespace
}  // namespace shoal::engine::cpu
