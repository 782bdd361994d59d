// Dot products of a tile's rows where an instruction picks its word of activations out of a register: one
// load brings that of every row. Include after a dots_*.h that has dot_by_lane(), before table.h.
#pragma once

#include "engine/cpu/sixteen_lanes/matrix.h"

namespace shoal::engine::cpu {
namespace {

static_assert(kTileRows <= 4);

// The words of up to four rows that start at `tile`. Behind a tile's words there is more of its block, so
// that sixteen bytes are always there.
inline int8x16_t load_row_words(const uint8_t* tile) {
  return vreinterpretq_s8_u8(vld1q_u8(tile));
}

template <class Codes, int first, int end, int panels, int rows>
[[gnu::always_inline]] inline void add_dots_by_lane(const Places<panels>& codes, uint32_t group,
                                                    const uint8_t* tile, I32x16 (&dots)[panels][rows]) {
  for_each_index<first, end>([&](auto word) SHOAL_INLINE_LAMBDA {
    const int8x16_t activations = load_row_words(tile + 4 * (word.value - first) * rows);
#pragma GCC unroll kUnroll
    for (int p = 0; p < panels; ++p) {
      const U8x64 weights = Codes::template load_word_of<word.value>(codes[p], group);
      for_each_index<0, rows>([&](auto row) SHOAL_INLINE_LAMBDA {
        dots[p][row.value] = dot_by_lane<row.value>(dots[p][row.value], weights, activations);
      });
    }
  });
}

}  // namespace
}  // namespace shoal::engine::cpu
