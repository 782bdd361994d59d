// Attention of a few query vectors over one kv head's pages, over sixteen lanes. Include after a lanes.h.
//
// The order of operations, per query vector and whatever shares its tile or step: tokens are taken in runs of
// 64 that start at multiples of 64. In a run: score = scale * (sequential FMA over head_dim), soft-capped if
// there is a cap; the run's maximum; where it exceeds the maximum so far, the sums so far are multiplied by
// exp(old - new); weights exp(score - maximum) are added to 16 lane sums (token % 16), and output[d] =
// fma(weight, value[d], output[d]) token by token. At the end the lane sums are folded by the fixed tree and
// the output is multiplied by 1 / sum. A sink comes before all runs: it is the maximum and its weight, 1, is
// in lane 0. A q8 key is int8 * scale (exact) before the FMA; a q8 value meets weight * its block's scale
// (rounded).
#pragma once

#include "engine/cpu/sixteen_lanes/cache.h"

namespace shoal::engine::cpu {
namespace {

struct QueryState {
  F32x16 lane_sums;
  float maximum;
};

inline QueryState initial_state(const AttentionTask& task, int query) {
  if (!task.has_sinks) return {zero_f32(), -__builtin_inff()};
  return {select_range(0, 1, broadcast(1.0f), zero_f32()), task.sinks[query]};
}

inline const uint8_t* page_of(const AttentionTask& task, uint32_t token) {
  return task.cache + size_t{task.pages[token / task.page_tokens]} * task.page_bytes;
}
// The f16 scales of the sixteen tokens from `token` on, block after block; `offset` is that of keys or
// values.
inline const uint8_t* scales_of(const AttentionTask& task, size_t offset, uint32_t token) {
  return page_of(task, token) + offset + 2 * size_t{token % task.page_tokens} * cache_blocks(task.head_dim);
}

// scores[q * kAttentionRun + t - run] for the tokens of `groups` groups of 16 from `token` on, inside the
// run. `queries` is [head_dim][rows].
template <class Cache, int rows, int groups>
inline void score_groups(const AttentionTask& task, const float* queries, uint32_t run, uint32_t token,
                         float* scores) {
  const uint8_t* keys[groups];
  const uint8_t* values[groups];  // wanted next: fetched meanwhile
  F32x16 sums[groups][rows], scales[groups];
#pragma GCC unroll kUnroll
  for (int g = 0; g < groups; ++g) {
    uint32_t first = token + 16 * static_cast<uint32_t>(g);
    size_t skipped = size_t{first % task.page_tokens} * task.head_dim * Cache::kBytes;
    keys[g] = page_of(task, first) + task.key_offset + skipped;
    values[g] = page_of(task, first) + task.value_offset + skipped;
#pragma GCC unroll kUnroll
    for (int q = 0; q < rows; ++q) sums[g][q] = zero_f32();
  }
  const uint32_t block = Cache::kScaled ? kCacheBlock : task.head_dim;
  for (uint32_t first = 0; first < task.head_dim; first += block) {
    if constexpr (Cache::kScaled) {
#pragma GCC unroll kUnroll
      for (int g = 0; g < groups; ++g) {
        uint32_t at = token + 16 * static_cast<uint32_t>(g);
        scales[g] = load_f16(scales_of(task, task.key_scale_offset, at) + size_t{first} / kCacheBlock * 32);
      }
    }
    const uint32_t end = smaller(first + block, task.head_dim);
    for (uint32_t d = first; d < end; ++d) {
#pragma GCC unroll kUnroll
      for (int g = 0; g < groups; ++g) {
        F32x16 key = Cache::load_values(keys[g] + size_t{d} * 16 * Cache::kBytes);
        if constexpr (Cache::kScaled) key = multiply(key, scales[g]);
        __builtin_prefetch(values[g] + size_t{d} * 16 * Cache::kBytes);
#pragma GCC unroll kUnroll
        for (int q = 0; q < rows; ++q)
          sums[g][q] = fma(key, broadcast(queries[size_t{d} * rows + q]), sums[g][q]);
      }
    }
  }
  F32x16 scale = broadcast(task.scale);
#pragma GCC unroll kUnroll
  for (int g = 0; g < groups; ++g) {
#pragma GCC unroll kUnroll
    for (int q = 0; q < rows; ++q) {
      store(scores + q * kAttentionRun + (token - run) + 16 * g, multiply(sums[g][q], scale));
    }
  }
}

// The same for tokens of [begin, end), both multiples of 16. With few rows several groups go together, since
// each score is one chain of dependent FMAs.
template <class Cache, int rows>
inline void score_run(const AttentionTask& task, const float* queries, uint32_t run, uint32_t begin,
                      uint32_t end, float* scores) {
  constexpr int kGroups = rows <= 2 ? kScoreGroups : rows <= 4 ? (kScoreGroups + 1) / 2 : 1;
  for (; begin + 16 * kGroups <= end; begin += 16 * kGroups) {
    score_groups<Cache, rows, kGroups>(task, queries, run, begin, scores);
  }
  for (; begin < end; begin += 16) score_groups<Cache, rows, 1>(task, queries, run, begin, scores);
}

// Turns one query's scores of tokens [begin, end) of the run into weights; returns what its output must be
// multiplied by first. [begin, end) is not empty.
inline float soften_run(QueryState& state, float* scores, uint32_t run, uint32_t begin, uint32_t end,
                        float cap) {
  F32x16 nothing = broadcast(-__builtin_inff()), caps = broadcast(cap);
  F32x16 largest = nothing;
  uint32_t first = begin / 16 * 16 - run;
  for (uint32_t i = first; i < end - run; i += 16) {
    uint32_t low = begin - run > i ? begin - run - i : 0, high = end - run - i < 16 ? end - run - i : 16;
    F32x16 given = load(scores + i);
    F32x16 masked = select_range(low, high, cap == 0.0f ? given : soft_cap(given, caps), nothing);
    store(scores + i, masked);
    largest = maximum(largest, masked);
  }
  float run_maximum = fold_maximum(largest);
  float rescale = 1.0f;
  if (run_maximum > state.maximum) {
    rescale = first_lane(exponential(broadcast(state.maximum - run_maximum)));
    state.maximum = run_maximum;
    state.lane_sums = multiply(state.lane_sums, broadcast(rescale));
  }
  F32x16 top = broadcast(state.maximum);
  for (uint32_t i = first; i < end - run; i += 16) {
    F32x16 weights = exponential(subtract(load(scores + i), top));
    store(scores + i, weights);
    state.lane_sums = add(state.lane_sums, weights);
  }
  return rescale;
}

// Floats between the weights of one query and the next: one run, or one run per block.
template <class Cache>
inline size_t weight_stride(const AttentionTask& task) {
  return Cache::kScaled ? cache_blocks(task.head_dim) * kAttentionRun : kAttentionRun;
}

// to[block][t - run] = weight of token t times the scale of the token's block, for tokens [begin, end).
inline void scale_weights(const AttentionTask& task, const float* weights, uint32_t run, uint32_t begin,
                          uint32_t end, float* to) {
  const size_t blocks = cache_blocks(task.head_dim);
  for (uint32_t token = begin / 16 * 16; token < end; token += 16) {
    const uint8_t* scales = scales_of(task, task.value_scale_offset, token);
    const F32x16 weight = load(weights + (token - run));
    for (size_t block = 0; block < blocks; ++block) {
      store(to + block * kAttentionRun + (token - run), multiply(weight, load_f16(scales + 32 * block)));
    }
  }
}

// outputs[q][0 .. 16 * vectors) = outputs * rescale + sum over tokens [begin, end) of weight * value.
template <class Cache, int rows, int vectors>
inline void mix_values(const AttentionTask& task, const float* weights, uint32_t run, uint32_t begin,
                       uint32_t end, uint32_t dimension, const float* rescale, float* outputs,
                       size_t output_stride) {
  size_t value_bytes = output_stride * Cache::kBytes, query_stride = weight_stride<Cache>(task);
  if constexpr (Cache::kScaled) weights += size_t{dimension} / kCacheBlock * kAttentionRun;
  F32x16 sums[rows][vectors];
#pragma GCC unroll kUnroll
  for (int q = 0; q < rows; ++q) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) {
      sums[q][v] = multiply(load(outputs + q * output_stride + dimension + 16 * v), broadcast(rescale[q]));
    }
  }
  for (uint32_t token = begin; token < end;) {
    uint32_t row = token % task.page_tokens;
    uint32_t page_end = token - row + task.page_tokens < end ? token - row + task.page_tokens : end;
    const uint8_t* values =
        page_of(task, token) + task.value_offset + row * value_bytes + dimension * Cache::kBytes;
    // The keys of the next run, fetched meanwhile.
    uint32_t next = token + kAttentionRun;
    const uint8_t* keys = page_of(task, next < task.end_visible[0] ? next : token) + task.key_offset +
                          (row * task.head_dim + dimension) * Cache::kBytes;
    for (; token < page_end; ++token, values += value_bytes, keys += task.head_dim * Cache::kBytes) {
      __builtin_prefetch(keys);
      if constexpr (vectors * Cache::kBytes * 16 > 64) __builtin_prefetch(keys + 64);
#pragma GCC unroll kUnroll
      for (int v = 0; v < vectors; ++v) {
        F32x16 value = Cache::load_values(values + 16 * v * Cache::kBytes);
        size_t block = Cache::kScaled ? size_t{16} * v / kCacheBlock * kAttentionRun : 0;
#pragma GCC unroll kUnroll
        for (int q = 0; q < rows; ++q) {
          float weight = weights[q * query_stride + block + (token - run)];
          sums[q][v] = fma(broadcast(weight), value, sums[q][v]);
        }
      }
    }
  }
#pragma GCC unroll kUnroll
  for (int q = 0; q < rows; ++q) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) store(outputs + q * output_stride + dimension + 16 * v, sums[q][v]);
  }
}

template <class Cache, int rows>
inline void mix_all_values(const AttentionTask& task, const float* weights, uint32_t run, uint32_t begin,
                           uint32_t end, const float* rescale, float* outputs, size_t stride) {
  uint32_t d = 0;
  for (; d + 64 <= stride; d += 64) {
    mix_values<Cache, rows, 4>(task, weights, run, begin, end, d, rescale, outputs, stride);
  }
  for (; d < stride; d += 16) {
    mix_values<Cache, rows, 1>(task, weights, run, begin, end, d, rescale, outputs, stride);
  }
}

// One run for all queries of the tile: neighbours that see the same tokens are mixed together.
template <class Cache, int rows>
inline void attend_run(const AttentionTask& task, const float* queries, uint32_t run, QueryState* states,
                       float* scores, float* outputs, size_t stride) {
  uint32_t begin[rows], end[rows], lowest = run + kAttentionRun, highest = run;
  for (int q = 0; q < rows; ++q) {
    begin[q] = larger(task.first_visible[q], run);
    end[q] = smaller(task.end_visible[q], run + kAttentionRun);
    if (begin[q] >= end[q]) continue;
    lowest = smaller(lowest, begin[q]);
    highest = larger(highest, end[q]);
  }
  if (lowest >= highest) return;
  score_run<Cache, rows>(task, queries, run, lowest / 16 * 16, (highest + 15) / 16 * 16, scores);
  float rescale[rows];
  float* scaled = scores + kAttentionQueries * kAttentionRun;
  const size_t stride_of_weights = weight_stride<Cache>(task);
  for (int q = 0; q < rows; ++q) {
    if (begin[q] >= end[q]) continue;
    float* weights = scores + q * kAttentionRun;
    rescale[q] = soften_run(states[q], weights, run, begin[q], end[q], task.softcap);
    if constexpr (Cache::kScaled)
      scale_weights(task, weights, run, begin[q], end[q], scaled + q * stride_of_weights);
  }
  for (int q = 0; q < rows;) {
    if (begin[q] >= end[q]) {
      ++q;
      continue;
    }
    int same = 1;
    while (same < kMixQueries && q + same < rows && begin[q + same] == begin[q] && end[q + same] == end[q])
      ++same;
    const float* weights = (Cache::kScaled ? scaled : scores) + q * stride_of_weights;
    float* output = outputs + q * stride;
    if (same == 4) {
      mix_all_values<Cache, 4>(task, weights, run, begin[q], end[q], rescale + q, output, stride);
    } else if (same >= 2) {
      same = 2;
      mix_all_values<Cache, 2>(task, weights, run, begin[q], end[q], rescale + q, output, stride);
    } else {
      mix_all_values<Cache, 1>(task, weights, run, begin[q], end[q], rescale + q, output, stride);
    }
    q += same;
  }
}

template <class Cache, int rows>
inline void attend_rows(const AttentionTask& task) {
  size_t stride = (size_t{task.head_dim} + 15) / 16 * 16;
  float* queries = task.scratch;
  float* outputs = queries + kAttentionQueries * stride;
  float* scores = outputs + kAttentionQueries * stride;
  QueryState states[rows];
  uint32_t first = task.first_visible[0], last = task.end_visible[0];
  for (int q = 0; q < rows; ++q) {
    states[q] = initial_state(task, q);
    first = smaller(first, task.first_visible[q]);
    last = larger(last, task.end_visible[q]);
    for (size_t d = 0; d < task.head_dim; ++d)
      queries[d * rows + static_cast<size_t>(q)] = task.queries[q][d];
  }
  for (size_t i = 0; i < rows * stride; i += 16) store(outputs + i, zero_f32());
  for (uint32_t run = first / kAttentionRun * kAttentionRun; run < last; run += kAttentionRun) {
    attend_run<Cache, rows>(task, queries, run, states, scores, outputs, stride);
  }
  for (int q = 0; q < rows; ++q) {
    F32x16 inverse = broadcast(1.0f / fold_add(states[q].lane_sums));
    for_lanes(task.head_dim, [&](size_t d, uint32_t count) {
      F32x16 value = multiply(load(outputs + static_cast<size_t>(q) * stride + d), inverse);
      store_up_to(task.outputs[q] + d, value, count);
    });
  }
}

template <class Cache>
void attend(const AttentionTask& task) {
  switch (task.query_count) {
    case 1:
      return attend_rows<Cache, 1>(task);
    case 2:
      return attend_rows<Cache, 2>(task);
    case 3:
      return attend_rows<Cache, 3>(task);
    case 4:
      return attend_rows<Cache, 4>(task);
    case 5:
      return attend_rows<Cache, 5>(task);
    case 6:
      return attend_rows<Cache, 6>(task);
    case 7:
      return attend_rows<Cache, 7>(task);
    case 8:
      return attend_rows<Cache, 8>(task);
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
