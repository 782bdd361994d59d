// What ldtilecfg reads: how many rows of how many bytes each tile has.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kTileCount = 8;

struct TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

}  // namespace
}  // namespace shoal::engine::cpu
