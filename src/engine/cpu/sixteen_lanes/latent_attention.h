// Attention over latent rows that all heads share, over sixteen lanes. Include after a lanes.h.
//
// Scores are computed with a query vector per lane, outputs with a column per lane. The order of operations,
// per query vector, is that of attention.h: spans of 512 tokens; score = scale * (sequential FMA over the
// row's values); in runs of 64 tokens: maximum, rescaling, weights into 16 sums (token % 16), output =
// fma(weight, value, output) token by token; spans are folded in order; at the end the fixed tree over the
// sums and 1 / sum. A q8 value is int8 * scale (exact).
#pragma once

#include "engine/cpu/sixteen_lanes/cache.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kLanes = 16;
constexpr uint32_t kLatentColumns = 64;          // of rows made f32 at once
constexpr int kLatentTokens = kScoreGroups * 4;  // scored at once
constexpr int kLatentUnroll = kUnroll == 1 ? 1 : kLatentTokens;

// Where the rows of a run's tokens [run, end) are.
inline void locate_rows(const LatentTask& task, uint32_t run, uint32_t end, const uint8_t** rows) {
  for (uint32_t token = run; token < end; ++token) {
    const uint8_t* page = task.cache + size_t{task.pages[token / task.page_tokens]} * task.page_bytes;
    *rows++ = page + task.rows_offset + size_t{token % task.page_tokens} * task.row_bytes;
  }
}

// The same of the run after, for fetching ahead; what is not cached yet repeats the first row.
inline void locate_next_rows(const LatentTask& task, uint32_t run, const uint8_t* const* rows,
                             const uint8_t** next) {
  const uint32_t begin = run + kAttentionRun;
  const uint32_t end = smaller(larger(task.cached_tokens, begin), begin + kAttentionRun);
  locate_rows(task, begin, end, next);
  for (uint32_t t = end - begin; t < kAttentionRun; ++t) next[t] = rows[0];
}

// Fetches what expand_row will read.
template <class Cache>
inline void fetch_row(const LatentTask& task, const uint8_t* row, uint32_t column, uint32_t width) {
  size_t offset = column * Cache::kBytes;
  if constexpr (Cache::kScaled) {
    __builtin_prefetch(row + 2 * (column / kCacheBlock));
    offset += 2 * cache_blocks(task.latent_rank + task.rope_dim);
  }
  for (size_t i = 0; i < width * Cache::kBytes; i += 64) __builtin_prefetch(row + offset + i);
}

// Columns [column, column + width) of a row of the cache as f32; `column` is a multiple of kLatentColumns and
// `width` one of 16, up to kLatentColumns.
template <class Cache>
inline void expand_row(const LatentTask& task, const uint8_t* row, uint32_t column, uint32_t width,
                       float* to) {
  if constexpr (!Cache::kScaled) {
    const uint8_t* from = row + column * Cache::kBytes;
    for (uint32_t i = 0; i < width; i += kLanes) store(to + i, Cache::load_values(from + i * Cache::kBytes));
  } else {
    const uint8_t* from = row + 2 * cache_blocks(task.latent_rank + task.rope_dim) + column;
    float scales[kLanes];
    store(scales, load_f16(row + 2 * (column / kCacheBlock)));
    for (uint32_t i = 0; i < width; i += kLanes)
      store(to + i, multiply(Cache::load_values(from + i), broadcast(scales[i / kCacheBlock])));
  }
}

// scores[token][16] of up to kLatentTokens rows; those beyond `count` are not meant for use.
template <class Cache>
inline void score_rows(const LatentTask& task, const float* queries, const uint8_t* const* rows,
                       const uint8_t* const* next, uint32_t count, float* scores) {
  alignas(64) float block[kLatentTokens * kLatentColumns];
  F32x16 sums[kLatentTokens];
#pragma GCC unroll kLatentUnroll
  for (int t = 0; t < kLatentTokens; ++t) sums[t] = zero_f32();
  const uint32_t values = task.latent_rank + task.rope_dim;
  for (uint32_t column = 0; column < values; column += kLatentColumns) {
    const uint32_t width = smaller(kLatentColumns, values - column);
    for (uint32_t t = 0; t < kLatentTokens; ++t) {
      const uint8_t* row = rows[smaller(t, count - 1)];
      expand_row<Cache>(task, row, column, (width + 15) / 16 * 16, block + t * kLatentColumns);
      fetch_row<Cache>(task, next[t], column, width);
    }
    for (uint32_t d = 0; d < width; ++d) {
      const F32x16 query = load(queries + size_t{column + d} * kLanes);
#pragma GCC unroll kLatentUnroll
      for (int t = 0; t < kLatentTokens; ++t)
        sums[t] = fma(broadcast(block[t * kLatentColumns + d]), query, sums[t]);
    }
  }
  const F32x16 scale = broadcast(task.scale);
#pragma GCC unroll kLatentUnroll
  for (int t = 0; t < kLatentTokens; ++t) store(scores + t * kLanes, multiply(sums[t], scale));
}

template <class Cache>
inline void score_latent_run(const LatentTask& task, const float* queries, const uint8_t* const* rows,
                             const uint8_t* const* next, uint32_t count, float* scores) {
  for (uint32_t t = 0; t < count; t += kLatentTokens)
    score_rows<Cache>(task, queries, rows + t, next + t, count - t, scores + t * kLanes);
}

struct LatentState {
  F32x16 maximum;
  F32x16 sums[kLanes];  // by token % 16
};

inline void begin_latent(LatentState& state) {
  state.maximum = broadcast(-__builtin_inff());
  for (F32x16& sum : state.sums) sum = zero_f32();
}

// The first query that sees `token`; all after it do.
inline uint32_t first_seeing(const LatentTask& task, uint32_t token) {
  uint32_t query = 0;
  while (query < task.query_count && task.end_visible[query] <= token) ++query;
  return query;
}

// Turns the scores [end - run][16] of a run into weights; rescale[16] is what outputs are multiplied by
// first.
inline void soften_latent_run(const LatentTask& task, LatentState& state, uint32_t run, uint32_t end,
                              float* scores, float* rescale) {
  const F32x16 nothing = broadcast(-__builtin_inff());
  F32x16 top = state.maximum;
  for (uint32_t token = run; token < end; ++token) {
    float* at = scores + size_t{token - run} * kLanes;
    const F32x16 masked = select_range(first_seeing(task, token), kLanes, load(at), nothing);
    store(at, masked);
    top = maximum(masked, top);
  }
  // Queries that see nothing of the run stay as they are.
  const uint32_t first = first_seeing(task, run);
  const F32x16 factor =
      select_range(first, kLanes, exponential(subtract(state.maximum, top)), broadcast(1.0f));
  store(rescale, factor);
  state.maximum = select_range(first, kLanes, top, state.maximum);
  for (F32x16& sum : state.sums) sum = multiply(sum, factor);
  for (uint32_t token = run; token < end; ++token) {
    float* at = scores + size_t{token - run} * kLanes;
    const F32x16 weights = select_range(first_seeing(task, token), kLanes,
                                        exponential(subtract(load(at), state.maximum)), zero_f32());
    store(at, weights);
    state.sums[token % kLanes] = add(state.sums[token % kLanes], weights);
  }
}

// outputs[q][0 .. 16 * vectors) = outputs * rescale[q] + sum over `count` tokens of weight * value; rows lie
// kLatentColumns floats apart.
template <int queries, int vectors>
inline void mix_rows(const float* weights, const float* rows, uint32_t count, const float* rescale,
                     float* outputs, size_t output_stride) {
  F32x16 sums[queries][vectors];
#pragma GCC unroll kUnroll
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v)
      sums[q][v] = multiply(load(outputs + q * output_stride + 16 * v), broadcast(rescale[q]));
  }
  for (uint32_t t = 0; t < count; ++t, rows += kLatentColumns, weights += kLanes) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) {
      const F32x16 value = load(rows + 16 * v);
#pragma GCC unroll kUnroll
      for (int q = 0; q < queries; ++q) sums[q][v] = fma(broadcast(weights[q]), value, sums[q][v]);
    }
  }
#pragma GCC unroll kUnroll
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) store(outputs + q * output_stride + 16 * v, sums[q][v]);
  }
}

template <int queries>
inline void mix_columns(const float* weights, const float* rows, uint32_t count, uint32_t width,
                        const float* rescale, float* outputs, size_t output_stride) {
  constexpr int kVectors = kMixQueries;  // what registers hold
  uint32_t column = 0;
  for (; column + 16 * kVectors <= width; column += 16 * kVectors)
    mix_rows<queries, kVectors>(weights, rows + column, count, rescale, outputs + column, output_stride);
  for (; column < width; column += 16)
    mix_rows<queries, 1>(weights, rows + column, count, rescale, outputs + column, output_stride);
}

// One block of columns of a run, expanded to `rows`: neighbours that see the same tokens go together.
inline void mix_block(const LatentTask& task, uint32_t run, uint32_t end, const float* weights,
                      const float* rescale, const float* rows, uint32_t width, float* outputs,
                      size_t output_stride) {
  for (uint32_t q = 0; q < task.query_count;) {
    const uint32_t seen = smaller(task.end_visible[q], end);
    uint32_t same = 1;
    while (same < kMixQueries && q + same < task.query_count &&
           smaller(task.end_visible[q + same], end) == seen) {
      ++same;
    }
    if (same == 3) same = 2;
    const uint32_t count = seen > run ? seen - run : 0;
    float* output = outputs + q * output_stride;
    if (count == 0) {
    } else if (same == 4) {
      mix_columns<4>(weights + q, rows, count, width, rescale + q, output, output_stride);
    } else if (same == 2) {
      mix_columns<2>(weights + q, rows, count, width, rescale + q, output, output_stride);
    } else {
      mix_columns<1>(weights + q, rows, count, width, rescale + q, output, output_stride);
    }
    q += same;
  }
}

// Adds a run's tokens to outputs [16][columns].
template <class Cache>
inline void mix_latent_run(const LatentTask& task, const uint8_t* const* rows, uint32_t run, uint32_t end,
                           const float* weights, const float* rescale, float* outputs, size_t columns) {
  alignas(64) float block[kAttentionRun * kLatentColumns];
  for (uint32_t column = 0; column < columns; column += kLatentColumns) {
    const auto width = smaller(kLatentColumns, static_cast<uint32_t>(columns) - column);
    for (uint32_t t = 0; t < end - run; ++t)
      expand_row<Cache>(task, rows[t], column, width, block + t * kLatentColumns);
    mix_block(task, run, end, weights, rescale, block, width, outputs + column, columns);
  }
}

template <class Cache>
void attend_latent(const LatentTask& task) {
  const LatentStateLayout at = latent_state(task.latent_rank);
  alignas(64) float scores[kAttentionRun * kLanes];
  float rescale[kLanes];
  const uint8_t* rows[kAttentionRun];
  const uint8_t* next[kAttentionRun];
  float* outputs = task.state + at.outputs;
  LatentState state;
  begin_latent(state);
  for (size_t i = 0; i < kLanes * at.columns; i += kLanes) store(outputs + i, zero_f32());
  for (uint32_t run = task.begin; run < task.end; run += kAttentionRun) {
    const uint32_t end = smaller(run + kAttentionRun, task.end);
    locate_rows(task, run, end, rows);
    locate_next_rows(task, run, rows, next);
    score_latent_run<Cache>(task, task.queries, rows, next, end - run, scores);
    soften_latent_run(task, state, run, end, scores, rescale);
    mix_latent_run<Cache>(task, rows, run, end, scores, rescale, outputs, at.columns);
  }
  for (size_t i = 0; i < kLanes; ++i) store(task.state + i * kLanes, state.sums[i]);
  store(task.state + at.maxima, state.maximum);
}

// Queries that see nothing of the span stay as they are.
void latent_fold(const LatentTask& task, const float* part, float* state) {
  const LatentStateLayout at = latent_state(task.latent_rank);
  const uint32_t first = first_seeing(task, task.begin);
  const F32x16 before = load(state + at.maxima), here = load(part + at.maxima);
  const F32x16 top = maximum(here, before);
  const F32x16 keep = exponential(subtract(before, top)), take = exponential(subtract(here, top));
  for (size_t i = 0; i < kLanes * kLanes; i += kLanes) {
    const F32x16 sums = load(state + i), both = fma(load(part + i), take, multiply(sums, keep));
    store(state + i, select_range(first, kLanes, both, sums));
  }
  store(state + at.maxima, select_range(first, kLanes, top, before));
  float keeps[kLanes], takes[kLanes];
  store(keeps, keep);
  store(takes, take);
  for (size_t q = first; q < task.query_count; ++q) {
    const F32x16 kept = broadcast(keeps[q]), taken = broadcast(takes[q]);
    const size_t begin = at.outputs + q * at.columns;
    for (size_t i = begin; i < begin + at.columns; i += kLanes)
      store(state + i, fma(load(part + i), taken, multiply(load(state + i), kept)));
  }
}

void latent_finish(const LatentTask& task, const float* state, float* const* outputs) {
  const LatentStateLayout at = latent_state(task.latent_rank);
  F32x16 sums[kLanes];
  for (size_t i = 0; i < kLanes; ++i) sums[i] = load(state + i * kLanes);
  for (uint32_t half = kLanes / 2; half > 0; half /= 2) {
    for (uint32_t i = 0; i < half; ++i) sums[i] = add(sums[i], sums[i + half]);
  }
  float inverse[kLanes];
  store(inverse, divide(broadcast(1.0f), sums[0]));
  for (size_t q = 0; q < task.query_count; ++q) {
    const float* from = state + at.outputs + q * at.columns;
    const F32x16 factor = broadcast(inverse[q]);
    for_lanes(task.latent_rank, [&](size_t i, uint32_t count) {
      store_up_to(outputs[q] + i, multiply(load(from + i), factor), count);
    });
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
