// The tile registers of AMX. A tile is sixteen rows of up to 64 bytes; the shapes of all eight are set
// together. Assembly of our own: the compilers' _tile_loadconfig reads 8 of its 64 bytes (g++ 12) and their
// loads and stores do not say that they touch memory. No compiler keeps anything in a tile by itself.
//
// Another header may take this one's place (model_tiles.h does in tests): products.h is written over either.
#pragma once

#include "engine/cpu/amx/tile_shapes.h"

namespace shoal::engine::cpu {
namespace {

// Tiles can be used while one of these lives, by the thread that made it.
class TileScope {
 public:
  explicit TileScope(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
  ~TileScope() { asm volatile("tilerelease"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

template <int tile>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
// Row i of the tile lies at from + i * stride.
template <int tile>
inline void tile_load(const void* from, size_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride) : "memory");
}
template <int tile>
inline void tile_store(void* to, size_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(to), "r"(stride) : "memory");
}
// sum[m][n] += the sum over k of the int8 left[m][k] and right[k / 4][4 n + k % 4], an int8 or a uint8.
template <int sum, int left, int right>
inline void tile_dot_signed() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
}
template <int sum, int left, int right>
inline void tile_dot_unsigned() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right));
}

}  // namespace
}  // namespace shoal::engine::cpu
