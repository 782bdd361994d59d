// Attention of a few query vectors over one kv head's pages, over sixteen lanes. Include after a lanes.h.
//
// The order of operations, per query vector and whatever shares its tile or step: tokens are taken in spans
// of 512 that start at multiples of 512, and in a span in runs of 64. In a run: score = scale * (sequential
// FMA over head_dim), soft-capped if there is a cap; the run's maximum; where it exceeds the maximum so far
// of the span, the span's sums so far are multiplied by exp(old - new); weights exp(score - maximum) are
// added to 16 lane sums (token % 16), and output[d] = fma(weight, value[d], output[d]) token by token. Spans
// are folded one after the other: sums and outputs = fma(the span's, exp(its maximum - the larger), those so
// far * exp(their maximum - the larger)). At the end the lane sums are folded by the fixed tree and the
// output is multiplied by 1 / sum. A sink comes before the first run that is seen: it is the maximum and its
// weight, 1, is in lane 0. A q8 key is int8 * scale (exact) before the FMA; a q8 value meets weight * its
// block's scale (rounded).
#pragma once

#include "engine/cpu/sixteen_lanes/cache.h"

namespace shoal::engine::cpu {
namespace {

struct QueryState {
  F32x16 lane_sums;
  float maximum;
};

inline QueryState initial_state(const AttentionTask& task, int query) {
  if (!task.has_sink[query]) return {zero_f32(), -__builtin_inff()};
  return {select_range(0, 1, broadcast(1.0f), zero_f32()), task.sinks[query]};
}

// Where the groups of sixteen tokens of a run are in the cache. Those past the end repeat the last one.
constexpr uint32_t kRunGroups = kAttentionRun / 16;
struct RunPlaces {
  const uint8_t* keys[kRunGroups];
  const uint8_t* values[kRunGroups];
  const uint8_t* key_scales[kRunGroups];  // f16 [blocks][16 tokens]
  const uint8_t* value_scales[kRunGroups];
};

template <class Cache>
inline void locate_run(const AttentionTask& task, uint32_t run, RunPlaces& places) {
  const size_t stride = (size_t{task.head_dim} + 15) / 16 * 16, blocks = cache_blocks(task.head_dim);
  for (uint32_t g = 0; g < kRunGroups; ++g) {
    const uint32_t wanted = run + 16 * g;
    const uint32_t token = wanted < task.cached_tokens ? wanted : (task.cached_tokens - 1) / 16 * 16;
    const uint32_t page = token / task.page_tokens, row = token - page * task.page_tokens;
    const uint8_t* base = task.cache + size_t{task.pages[page]} * task.page_bytes;
    places.keys[g] = base + task.key_offset + size_t{row} * task.head_dim * Cache::kBytes;
    places.values[g] = base + task.value_offset + row * stride * Cache::kBytes;
    places.key_scales[g] = base + task.key_scale_offset + 2 * row * blocks;
    places.value_scales[g] = base + task.value_scale_offset + 2 * row * blocks;
  }
}

// What is fetched while a run is computed: a page's parts are too short and too far apart for the processor
// to fetch ahead by itself. With few queries a run is so short that its own values are fetched during its
// scores and the next keys during its values; else both are fetched a run ahead, and for the first run of all
// its own values beside the next keys.
struct Fetched {
  const uint8_t* during_scores[kRunGroups];  // parts of sixteen tokens
  const uint8_t* during_values[kRunGroups];
  bool own_values_too;
};

template <int rows>
inline void choose_fetched(const RunPlaces& here, const RunPlaces& next, bool is_first, Fetched& fetched) {
  for (uint32_t g = 0; g < kRunGroups; ++g) {
    fetched.during_scores[g] = rows <= 2 ? here.values[g] : next.keys[g];
    fetched.during_values[g] = rows <= 2 ? next.keys[g] : next.values[g];
  }
  fetched.own_values_too = rows > 2 && is_first;
}

inline void fetch_scales(const AttentionTask& task, const RunPlaces& places) {
  for (uint32_t g = 0; g < kRunGroups; ++g) {
    for (size_t i = 0; i < 32 * cache_blocks(task.head_dim); i += 64) {
      __builtin_prefetch(places.key_scales[g] + i);
      __builtin_prefetch(places.value_scales[g] + i);
    }
  }
}

// scores[q * kAttentionRun + 16 g + i] for token i of `groups` groups from `group` on, inside the run.
// `queries` is [head_dim][rows]. Meanwhile what comes next is fetched, see Fetched.
template <class Cache, int rows, int groups>
inline void score_groups(const AttentionTask& task, const RunPlaces& places, const Fetched& fetched,
                         const float* queries, uint32_t group, float* scores) {
  constexpr uint32_t kPerLine = 64 / (16 * Cache::kBytes);  // steps of d that share a cache line
  const uint8_t* keys[groups];
  const uint8_t* fetch[groups];
  const uint8_t* values[groups];
  F32x16 sums[groups][rows], scales[groups];
#pragma GCC unroll kUnroll
  for (int g = 0; g < groups; ++g) {
    keys[g] = places.keys[group + static_cast<uint32_t>(g)];
    fetch[g] = fetched.during_scores[group + static_cast<uint32_t>(g)];
    values[g] = places.values[group + static_cast<uint32_t>(g)];
#pragma GCC unroll kUnroll
    for (int q = 0; q < rows; ++q) sums[g][q] = zero_f32();
  }
  const uint32_t block = Cache::kScaled ? kCacheBlock : task.head_dim;
  for (uint32_t first = 0; first < task.head_dim; first += block) {
    if constexpr (Cache::kScaled) {
#pragma GCC unroll kUnroll
      for (int g = 0; g < groups; ++g)
        scales[g] = load_f16(places.key_scales[group + static_cast<uint32_t>(g)] + size_t{first});
    }
    const uint32_t end = smaller(first + block, task.head_dim);
    for (uint32_t d = first; d < end; ++d) {
      if (d % kPerLine == 0) {
#pragma GCC unroll kUnroll
        for (int g = 0; g < groups; ++g) {
          __builtin_prefetch(fetch[g] + size_t{d} * 16 * Cache::kBytes);
          if (fetched.own_values_too) __builtin_prefetch(values[g] + size_t{d} * 16 * Cache::kBytes);
        }
      }
#pragma GCC unroll kUnroll
      for (int g = 0; g < groups; ++g) {
        F32x16 key = Cache::load_values(keys[g] + size_t{d} * 16 * Cache::kBytes);
        if constexpr (Cache::kScaled) key = multiply(key, scales[g]);
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
      store(scores + q * kAttentionRun + 16 * (group + static_cast<uint32_t>(g)),
            multiply(sums[g][q], scale));
    }
  }
}

// The same for groups of [group, end). Several go together, since each score is one chain of dependent FMAs
// and the queries are loaded once for all of them.
template <class Cache, int rows>
inline void score_run(const AttentionTask& task, const RunPlaces& places, const Fetched& fetched,
                      const float* queries, uint32_t group, uint32_t end, float* scores) {
  constexpr int kFit = kScoreGroups * kScoreGroups / rows;  // as many sums as registers hold
  constexpr int kGroups = kFit < 1 ? 1 : kFit < kScoreGroups ? kFit : kScoreGroups;
  for (; group + kGroups <= end; group += kGroups)
    score_groups<Cache, rows, kGroups>(task, places, fetched, queries, group, scores);
  for (; group < end; ++group) score_groups<Cache, rows, 1>(task, places, fetched, queries, group, scores);
}

// Turns one query's scores of tokens [begin, end) of the run into weights; returns what its output must be
// multiplied by first. [begin, end) is not empty.
inline float soften_run(QueryState& state, float* scores, uint32_t begin, uint32_t end, float cap) {
  F32x16 nothing = broadcast(-__builtin_inff()), caps = broadcast(cap);
  F32x16 largest = nothing;
  const uint32_t first = begin / 16 * 16;
  for (uint32_t i = first; i < end; i += 16) {
    uint32_t low = begin > i ? begin - i : 0, high = end - i < 16 ? end - i : 16;
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
  for (uint32_t i = first; i < end; i += 16) {
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

// to[block][t - run] = weight of token t times the scale of the token's block, for groups [group, end).
inline void scale_weights(const AttentionTask& task, const RunPlaces& places, const float* weights,
                          uint32_t group, uint32_t end, float* to) {
  const size_t blocks = cache_blocks(task.head_dim);
  for (; group < end; ++group) {
    const F32x16 weight = load(weights + 16 * group);
    for (size_t block = 0; block < blocks; ++block) {
      store(to + block * kAttentionRun + 16 * group,
            multiply(weight, load_f16(places.value_scales[group] + 32 * block)));
    }
  }
}

// outputs[q][0 .. 16 * vectors) = outputs * rescale + sum over tokens [begin, end) of the run of weight *
// value. What comes next is fetched meanwhile.
template <class Cache, int rows, int vectors>
inline void mix_values(const AttentionTask& task, const RunPlaces& places, const Fetched& fetched,
                       const float* weights, uint32_t begin, uint32_t end, uint32_t dimension,
                       const float* rescale, float* const* outputs, size_t stride) {
  const size_t value_bytes = stride * Cache::kBytes, query_stride = weight_stride<Cache>(task);
  if constexpr (Cache::kScaled) weights += size_t{dimension} / kCacheBlock * kAttentionRun;
  F32x16 sums[rows][vectors];
#pragma GCC unroll kUnroll
  for (int q = 0; q < rows; ++q) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v)
      sums[q][v] = multiply(load(outputs[q] + dimension + 16 * v), broadcast(rescale[q]));
  }
  for (uint32_t token = begin; token < end;) {
    const uint32_t group = token / 16, row = token % 16, group_end = smaller(16 * (group + 1), end);
    const uint8_t* values = places.values[group] + row * value_bytes + dimension * Cache::kBytes;
    const uint8_t* fetch = fetched.during_values[group] + row * value_bytes + dimension * Cache::kBytes;
    for (; token < group_end; ++token, values += value_bytes, fetch += value_bytes) {
      __builtin_prefetch(fetch);
      if constexpr (vectors * Cache::kBytes * 16 > 64) __builtin_prefetch(fetch + 64);
#pragma GCC unroll kUnroll
      for (int v = 0; v < vectors; ++v) {
        F32x16 value = Cache::load_values(values + 16 * v * Cache::kBytes);
        size_t block = Cache::kScaled ? size_t{16} * v / kCacheBlock * kAttentionRun : 0;
#pragma GCC unroll kUnroll
        for (int q = 0; q < rows; ++q) {
          float weight = weights[q * query_stride + block + token];
          sums[q][v] = fma(broadcast(weight), value, sums[q][v]);
        }
      }
    }
  }
#pragma GCC unroll kUnroll
  for (int q = 0; q < rows; ++q) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) store(outputs[q] + dimension + 16 * v, sums[q][v]);
  }
}

template <class Cache, int rows>
inline void mix_all_values(const AttentionTask& task, const RunPlaces& places, const Fetched& fetched,
                           const float* weights, uint32_t begin, uint32_t end, const float* rescale,
                           float* const* outputs, size_t stride) {
  uint32_t d = 0;
  for (; d + 64 <= stride; d += 64) {
    mix_values<Cache, rows, 4>(task, places, fetched, weights, begin, end, d, rescale, outputs, stride);
  }
  for (; d < stride; d += 16) {
    mix_values<Cache, rows, 1>(task, places, fetched, weights, begin, end, d, rescale, outputs, stride);
  }
}

// One run for all queries of the tile: neighbours that see the same tokens are mixed together.
template <class Cache, int rows>
inline void attend_run(const AttentionTask& task, const RunPlaces& places, const Fetched& fetched,
                       uint32_t run, QueryState* states, float* const* outputs, size_t stride) {
  uint32_t begin[rows], end[rows], lowest = kAttentionRun, highest = 0;  // within the run
  for (int q = 0; q < rows; ++q) {
    begin[q] = larger(task.begin[q], run) - run;
    end[q] = smaller(larger(task.end[q], run), run + kAttentionRun) - run;
    if (begin[q] >= end[q]) continue;
    lowest = smaller(lowest, begin[q]);
    highest = larger(highest, end[q]);
  }
  if (lowest >= highest) return;
  float* scores = task.scratch;
  score_run<Cache, rows>(task, places, fetched, task.queries, lowest / 16, (highest + 15) / 16, scores);
  float rescale[rows];
  float* scaled = scores + kAttentionQueries * kAttentionRun;
  const size_t stride_of_weights = weight_stride<Cache>(task);
  for (int q = 0; q < rows; ++q) {
    if (begin[q] >= end[q]) continue;
    float* weights = scores + q * kAttentionRun;
    rescale[q] = soften_run(states[q], weights, begin[q], end[q], task.softcap);
    if constexpr (Cache::kScaled) {
      scale_weights(task, places, weights, begin[q] / 16, (end[q] + 15) / 16, scaled + q * stride_of_weights);
    }
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
    if (same == 4) {
      mix_all_values<Cache, 4>(task, places, fetched, weights, begin[q], end[q], rescale + q, outputs + q,
                               stride);
    } else if (same >= 2) {
      same = 2;
      mix_all_values<Cache, 2>(task, places, fetched, weights, begin[q], end[q], rescale + q, outputs + q,
                               stride);
    } else {
      mix_all_values<Cache, 1>(task, places, fetched, weights, begin[q], end[q], rescale + q, outputs + q,
                               stride);
    }
    q += same;
  }
}

// Where the parts of a state are.
constexpr size_t kStateOutputs = 16;
inline size_t maximum_of_state(size_t stride) {
  return kStateOutputs + stride;
}

template <class Cache, int rows>
inline void attend_rows(const AttentionTask& task) {
  const size_t stride = (size_t{task.head_dim} + 15) / 16 * 16;
  QueryState states[rows];
  float* outputs[rows];
  uint32_t first = ~uint32_t{0}, last = 0;
  for (int q = 0; q < rows; ++q) {
    states[q] = initial_state(task, q);
    outputs[q] = task.states[q] + kStateOutputs;
    if (task.begin[q] >= task.end[q]) continue;
    first = smaller(first, task.begin[q]);
    last = larger(last, task.end[q]);
    for (size_t i = 0; i < stride; i += 16) store(outputs[q] + i, zero_f32());
  }
  uint32_t run = first / kAttentionRun * kAttentionRun;
  RunPlaces places[2];  // of this run and the next
  Fetched fetched;
  if (first < last) locate_run<Cache>(task, run, places[0]);
  for (int here = 0; run < last; run += kAttentionRun, here ^= 1) {
    locate_run<Cache>(task, run + kAttentionRun, places[here ^ 1]);
    choose_fetched<rows>(places[here], places[here ^ 1], run <= first, fetched);
    if constexpr (Cache::kScaled) fetch_scales(task, places[here ^ 1]);
    attend_run<Cache, rows>(task, places[here], fetched, run, states, outputs, stride);
  }
  for (int q = 0; q < rows; ++q) {
    if (task.begin[q] >= task.end[q]) continue;
    store(task.states[q], states[q].lane_sums);
    task.states[q][maximum_of_state(stride)] = states[q].maximum;
  }
}

void attention_fold(const float* part, uint32_t head_dim, float* state) {
  const size_t stride = (size_t{head_dim} + 15) / 16 * 16, at = maximum_of_state(stride);
  const float before = state[at], here = part[at], top = here > before ? here : before;
  const F32x16 keep = exponential(broadcast(before - top)), take = exponential(broadcast(here - top));
  for (size_t i = 0; i < kStateOutputs + stride; i += 16)
    store(state + i, fma(load(part + i), take, multiply(load(state + i), keep)));
  state[at] = top;
}

void attention_finish(const float* state, uint32_t head_dim, float* output) {
  const F32x16 inverse = broadcast(1.0f / fold_add(load(state)));
  for_lanes(head_dim, [&](size_t d, uint32_t count) {
    store_up_to(output + d, multiply(load(state + kStateOutputs + d), inverse), count);
  });
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
