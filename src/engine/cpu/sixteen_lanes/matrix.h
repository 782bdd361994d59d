// What all matrix products share, written once over sixteen lanes (one lane per output row of a panel).
// Include after a lanes.h. The products themselves: float_weights.h, blocks_of_32.h, blocks_of_256.h; each
// states its order of operations, which is the same for every row count, thread count and instruction set.
//
// A product of quantised weights has two paths. One row streams through a panel, since memory is what counts.
// Several rows share kTilePanels panels, 256 columns at a time: these stay in the first-level cache while
// every tile of kTileRows rows passes over them, and so do the sums. Weights are unpacked in registers, which
// costs little since a tile meets each of them kTileRows times; where it costs much and there are many tiles,
// once for all of them. All add a row's blocks in one order.
#pragma once

#include "engine/cpu/sixteen_lanes/elementwise.h"

namespace shoal::engine::cpu {
namespace {

// kUnroll, kTileRows, kTilePanels and kFloatPanels are the instruction set's.
template <int count>
struct Rows {
  static constexpr int value = count;
};

// Calls function(Rows<count>()) for the runtime `count` of [1, kTileRows].
template <int candidate = 1, class Function>
inline void with_rows(uint32_t count, Function function) {
  if constexpr (candidate == kTileRows) {
    return function(Rows<candidate>());
  } else {
    if (count == candidate) return function(Rows<candidate>());
    with_rows<candidate + 1>(count, function);
  }
}

template <int value_>
struct Index {
  static constexpr int value = value_;
};

// function(Index<first>()), ..., function(Index<end - 1>()), unrolled.
template <int first, int end, class Function>
[[gnu::always_inline]] inline void for_each_index(const Function& function) {
  if constexpr (first < end) {
    function(Index<first>());
    for_each_index<first + 1, end>(function);
  }
}
#define SHOAL_INLINE_LAMBDA __attribute__((always_inline))

// Writes the sums of one row to the panel's outputs, of which the last panel may lack some.
inline void store_outputs(const MatrixTask& task, uint32_t panel, F32x16 sums, float* output_row) {
  const uint32_t first = panel * kPanelRows, left = task.output_rows - first;
  store_up_to(output_row + first, sums, left < kPanelRows ? left : kPanelRows);
}
template <int rows>
inline void store_panel(const MatrixTask& task, uint32_t panel, const F32x16 (&sums)[rows], float* output) {
#pragma GCC unroll kUnroll
  for (int r = 0; r < rows; ++r) {
    store_outputs(task, panel, sums[r], output + static_cast<size_t>(r) * task.output_stride);
  }
}

// --- Quantised weights: an exact integer per block, then float sums ---

// `offset`: the weights are in the form of byte_weights().
template <bool offset>
[[gnu::always_inline]] inline I32x16 dot(I32x16 sum, U8x64 weights, const uint8_t* activations) {
  if constexpr (offset) return dot_bytes(sum, weights, load_word(activations));
  return dot_small(sum, weights, load_word(activations));
}

// A place in each of some panels.
template <int panels>
using Places = const uint8_t* [panels];

// dots[p][r] += the dot product of the words [first, end) of `Codes` (in group `group` of their block) and
// the activations of row r, which start at `tile`. An instruction set may specialise it for its lanes, after
// this file.
template <class Lanes>
struct DotLoop {
  template <class Codes, int first, int end, int panels, int rows>
  [[gnu::always_inline]] static inline void add(const Places<panels>& codes, uint32_t group,
                                                const uint8_t* tile, Lanes (&dots)[panels][rows]) {
    for_each_index<first, end>([&](auto word) SHOAL_INLINE_LAMBDA {
      U8x64 weights[panels];
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) weights[p] = Codes::template load_word_of<word.value>(codes[p], group);
#pragma GCC unroll kUnroll
      for (int r = 0; r < rows; ++r) {
#pragma GCC unroll kUnroll
        for (int p = 0; p < panels; ++p) {
          dots[p][r] =
              dot<Codes::kOffset>(dots[p][r], weights[p], tile + 4 * ((word.value - first) * rows + r));
        }
      }
    });
  }
};
template <class Codes, int first, int end, int panels, int rows, class Lanes>
[[gnu::always_inline]] inline void add_dots(const Places<panels>& codes, uint32_t group, const uint8_t* tile,
                                            Lanes (&dots)[panels][rows]) {
  DotLoop<Lanes>::template add<Codes, first, end, panels, rows>(codes, group, tile, dots);
}

// sum + dot * (weight_scale * activation_scale), the product of the scales rounded.
[[gnu::always_inline]] inline F32x16 add_scaled(F32x16 sum, I32x16 dot, F32x16 weight_scales,
                                                const uint8_t* activation_scale) {
  return fma(to_f32(dot), multiply(weight_scales, broadcast(load_float(activation_scale))), sum);
}

// The codebook of IQ4_NL and IQ4_XS (formats/quant_blocks.h), in the form of byte_weights().
constexpr uint8_t iq4_code(int value) {
  return static_cast<uint8_t>(kByteWeightsAreOffset ? value + 128 : value);
}
constexpr uint8_t kIq4Codes[16] = {iq4_code(-127), iq4_code(-104), iq4_code(-83), iq4_code(-65),
                                   iq4_code(-49),  iq4_code(-35),  iq4_code(-22), iq4_code(-10),
                                   iq4_code(1),    iq4_code(13),   iq4_code(25),  iq4_code(38),
                                   iq4_code(53),   iq4_code(69),   iq4_code(89),  iq4_code(113)};

[[gnu::always_inline]] inline void prefetch(const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

// The hardware's prefetchers lose the many short runs inside a block; with one row, memory is what counts.
template <int rows, size_t bytes>
[[gnu::always_inline]] inline void prefetch_block(const uint8_t* from) {
  if constexpr (rows == 1) {
    prefetch(from, bytes);
  }
}

// A chunk of weights that is wanted later, brought to the second-level cache in small bites between the dot
// products: a burst of requests holds up the core until most of them are answered.
constexpr uint32_t kBiteColumns = 32;
template <int panels>
struct Ahead {
  Places<panels> at = {};
  uint32_t lines = 0;       // cache lines of each panel a bite
  uint32_t tile_lines = 0;  // that go with a tile: whole bites
  uint32_t all_lines = 0;   // of the chunk

  // The bite that goes with the columns [block, block + 1) * kBiteColumns of a tile.
  [[gnu::always_inline]] void fetch(uint32_t block) const {
    for (uint32_t line = block * lines; line < (block + 1) * lines; ++line) {
#pragma GCC unroll kUnroll
      for (int p = 0; p < panels; ++p) __builtin_prefetch(at[p] + size_t{line} * 64, 0, 2);
    }
  }
};

// The sums of a tile between two chunks of columns: [rows, panels, kPanelRows].
template <int panels, int rows>
[[gnu::always_inline]] inline void load_sums(const float* from, F32x16 (&sums)[panels][rows]) {
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) sums[p][r] = load(from + (r * panels + p) * static_cast<int>(kPanelRows));
  }
}
template <int panels, int rows>
[[gnu::always_inline]] inline void store_sums(const F32x16 (&sums)[panels][rows], float* to) {
#pragma GCC unroll kUnroll
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll kUnroll
    for (int r = 0; r < rows; ++r) store(to + (r * panels + p) * static_cast<int>(kPanelRows), sums[p][r]);
  }
}

// A Type of weights has kActivations, chunk_at(panel, task, column), where the columns from `column` (a
// multiple of kChunkColumns) on lie in a panel, and accumulate<panels, rows>(task, chunks, columns, tile,
// sums, ahead), which adds `columns` columns of some panels times a tile to sums (as in store_sums) and
// fetches `ahead` bite by bite. It may have kUnpackRows, from so many rows on, chunks become kUnpackedBytes
// by unpack(chunk, to), and Unpacked::accumulate takes them.
constexpr uint32_t kChunkColumns = 256;
// How many chunks ahead weights are fetched: two to eight do equally well.
constexpr uint32_t kChunksAhead = 4;

template <class Type>
inline void stream_row(const MatrixTask& task) {
  for (uint32_t panel = task.first_panel; panel < task.end_panel; ++panel) {
    alignas(64) float sums[kPanelRows] = {};
    const Places<1> chunks = {Type::chunk_at(task.panels + panel * task.panel_bytes, task, 0)};
    Type::template accumulate<1, 1>(task, chunks, task.columns, task.activations, sums, {});
    store_outputs(task, panel, load(sums), task.output);
  }
}

// Rows whose sums stay in the first-level cache while the columns pass by; whole tiles.
constexpr uint32_t kSharedRows = 96 / kTileRows * kTileRows;

// Some panels times some rows, chunk of columns by chunk.
template <class Type, bool unpacks>
struct SharedRows {
  const MatrixTask& task;
  uint32_t panel;
  uint32_t panels;  // of kTilePanels; one that is not there is the first one's twin, and not stored
  uint32_t first_row;
  uint32_t row_count;
  float* sums;       // [kSharedRows, kTilePanels, kPanelRows]
  uint8_t* scratch;  // [kTilePanels, Type::kUnpackedBytes], if unpacks

  const uint8_t* tile_at(uint32_t row, uint32_t rows, uint32_t column) const {
    return task.activations + (first_row + row) * prepared_row_bytes(Type::kActivations, task.columns) +
           rows * prepared_row_bytes(Type::kActivations, column);
  }

  // A chunk of a tile is too short a run for the hardware's prefetchers.
  void prefetch_tile(uint32_t row, uint32_t column, uint32_t columns) const {
    if (row + kTileRows > row_count) return;
    prefetch(tile_at(row, kTileRows, column), kTileRows * prepared_row_bytes(Type::kActivations, columns));
  }

  void find_chunks(uint32_t column, Places<kTilePanels>& chunks) const {
    for (uint32_t p = 0; p < kTilePanels; ++p) {
      chunks[p] =
          Type::chunk_at(task.panels + (panel + (p < panels ? p : 0)) * task.panel_bytes, task, column);
      if constexpr (unpacks) {
        uint8_t* to = scratch + p * Type::kUnpackedBytes;
        Type::unpack(chunks[p], to);
        chunks[p] = to;
      }
    }
  }

  // What to fetch beside the chunk at `column`: one of these panels while it is new to this core, in the end
  // one of the next.
  Ahead<kTilePanels> ahead_of(uint32_t column) const {
    const uint32_t chunks = (task.columns + kChunkColumns - 1) / kChunkColumns;
    uint32_t wanted = column / kChunkColumns + (kChunksAhead < chunks ? kChunksAhead : chunks);
    const bool here = wanted < chunks;
    if (here ? first_row != 0 : first_row + row_count != task.row_count) return {};
    if (!here) wanted -= chunks;
    const size_t chunk_bytes = task.panel_bytes / chunks;
    Ahead<kTilePanels> ahead;
    for (uint32_t p = 0; p < kTilePanels; ++p) {
      ahead.at[p] =
          task.panels + (panel + p + (here ? 0 : kTilePanels)) * task.panel_bytes + wanted * chunk_bytes;
    }
    constexpr uint32_t kBites = kChunkColumns / kBiteColumns;  // that go with a tile
    const uint32_t tiles = (row_count + kTileRows - 1) / kTileRows;
    ahead.all_lines = static_cast<uint32_t>((chunk_bytes + 63) / 64);
    ahead.lines = (ahead.all_lines + tiles * kBites - 1) / (tiles * kBites);
    ahead.tile_lines = kBites * ahead.lines;
    return ahead;
  }

  // The part of it that goes with the tile at `row`.
  static Ahead<kTilePanels> part_of(const Ahead<kTilePanels>& chunk, uint32_t row) {
    const uint32_t line = row / kTileRows * chunk.tile_lines;
    if (line >= chunk.all_lines) return {};
    Ahead<kTilePanels> part = chunk;
    for (uint32_t p = 0; p < kTilePanels; ++p) part.at[p] = chunk.at[p] + size_t{line} * 64;
    return part;
  }

  template <int rows>
  void add_chunk(const Places<kTilePanels>& chunks, uint32_t columns, uint32_t column, uint32_t row,
                 const Ahead<kTilePanels>& ahead) const {
    const uint8_t* tile = tile_at(row, rows, column);
    float* tile_sums = sums + row * kTilePanels * kPanelRows;
    if constexpr (unpacks) {
      Type::Unpacked::template accumulate<kTilePanels, rows>(task, chunks, columns, tile, tile_sums, ahead);
    } else {
      Type::template accumulate<kTilePanels, rows>(task, chunks, columns, tile, tile_sums, ahead);
    }
  }

  void run() const {
    const uint32_t count = row_count * kTilePanels;
    for (uint32_t i = 0; i < count; ++i) store(sums + i * kPanelRows, zero_f32());
    for (uint32_t column = 0; column < task.columns; column += kChunkColumns) {
      const uint32_t left = task.columns - column, columns = left < kChunkColumns ? left : kChunkColumns;
      Places<kTilePanels> chunks;
      find_chunks(column, chunks);
      const Ahead<kTilePanels> ahead = ahead_of(column);
      for (uint32_t row = 0; row < row_count; row += kTileRows) {
        prefetch_tile(row + kTileRows, column, columns);
        with_rows(row_count - row < kTileRows ? row_count - row : kTileRows, [&](auto rows) {
          add_chunk<decltype(rows)::value>(chunks, columns, column, row, part_of(ahead, row));
        });
      }
    }
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t row = first_row + i / kTilePanels, p = i % kTilePanels;
      if (p >= panels) continue;
      store_outputs(task, panel + p, load(sums + i * kPanelRows), task.output + row * task.output_stride);
    }
  }
};

template <class Type, bool unpacks>
inline void share_rows(const MatrixTask& task, uint8_t* scratch) {
  alignas(64) float sums[kSharedRows * kTilePanels * kPanelRows];
  for (uint32_t panel = task.first_panel; panel < task.end_panel; panel += kTilePanels) {
    const uint32_t panels = task.end_panel - panel;
    for (uint32_t row = 0; row < task.row_count; row += kSharedRows) {
      const uint32_t rows = task.row_count - row;
      SharedRows<Type, unpacks>{.task = task,
                                .panel = panel,
                                .panels = panels < kTilePanels ? panels : kTilePanels,
                                .first_row = row,
                                .row_count = rows < kSharedRows ? rows : kSharedRows,
                                .sums = sums,
                                .scratch = scratch}
          .run();
    }
  }
}

template <class Type>
void multiply_quantised(const MatrixTask& task) {
  if (task.row_count == 1) return stream_row<Type>(task);
  if constexpr (requires { Type::kUnpackRows; }) {
    if (task.row_count >= Type::kUnpackRows) {
      alignas(64) uint8_t scratch[kTilePanels * Type::kUnpackedBytes];
      return share_rows<Type, true>(task, scratch);
    }
  }
  share_rows<Type, false>(task, nullptr);
}

}  // namespace
}  // namespace shoal::engine::cpu
