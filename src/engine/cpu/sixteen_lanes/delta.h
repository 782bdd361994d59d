// The gated delta rule and what comes before it, over sixteen lanes. Include after a lanes.h.
//
// The order of operations, per token: the convolution multiplies with the oldest tap first and goes on by
// FMA; x / (1 + exp(-x)). Heads are normalised by 1 / sqrt(16 lane sums of squares (index % 16), folded by
// the fixed tree, + 1e-6). State rows decay (one rounding) before use; sums over the key dimension are two
// chains of FMAs, even and odd indices, added at the end.
#pragma once

#include "engine/cpu/sixteen_lanes/router.h"

namespace shoal::engine::cpu {
namespace {

// The channels [0, count <= 16) of `task`, over all its rows.
inline void convolve_lanes(const ConvolutionTask& task, uint32_t channel, uint32_t count) {
  const uint32_t past = task.taps - 1;
  float taps[kMaxTaps][16];  // the first task.taps of them
  __builtin_memset(taps, 0, sizeof(taps[0]) * task.taps);
  for (uint32_t lane = 0; lane < count; ++lane) {
    for (uint32_t tap = 0; tap < task.taps; ++tap)
      taps[tap][lane] = task.weights[size_t{channel + lane} * task.taps + tap];
  }
  // Row `index` of the past rows followed by the new ones.
  auto row = [&](uint32_t index) {
    return index < past ? task.history + index * task.history_stride + channel
                        : task.input + (index - past) * task.input_stride + channel;
  };
  for (uint32_t t = 0; t < task.row_count; ++t) {
    F32x16 sum = multiply(load_up_to(row(t), count), load(taps[0]));
    for (uint32_t tap = 1; tap < task.taps; ++tap) {
      sum = fma(load_up_to(row(t + tap), count), load(taps[tap]), sum);
    }
    store_up_to(task.output + t * task.output_stride + channel, silu(sum), count);
  }
  for (uint32_t i = 0; i < past; ++i) {  // never reads a row that it has written: i < i + row_count
    store_up_to(task.history + i * task.history_stride + channel, load_up_to(row(i + task.row_count), count),
                count);
  }
}

void convolve_silu(const ConvolutionTask& task) {
  for_lanes(task.channels, [&](size_t channel, uint32_t count) {
    convolve_lanes(task, static_cast<uint32_t>(channel), count);
  });
}

void normalise_head(float* head, uint32_t size, float scale) {
  F32x16 squares = zero_f32();
  for_lanes(size, [&](size_t i, uint32_t count) {
    F32x16 x = load_up_to(head + i, count);
    squares = fma(x, x, squares);
  });
  const F32x16 length = broadcast(1.0f / __builtin_sqrtf(fold_add(squares) + 1e-6f)), by = broadcast(scale);
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(head + i, multiply(multiply(load_up_to(head + i, count), length), by), count);
  });
}

// log(1 + z) for z in [0, 1]: 2 atanh(z / (2 + z)), whose argument is at most 1/3, by its series to the
// power 17. Within 2 ulp.
inline F32x16 log_one_plus(F32x16 z) {
  F32x16 s = divide(z, add(z, broadcast(2.0f)));
  F32x16 square = multiply(s, s);
  F32x16 p = broadcast(1.0f / 17);
  p = fma(p, square, broadcast(1.0f / 15));
  p = fma(p, square, broadcast(1.0f / 13));
  p = fma(p, square, broadcast(1.0f / 11));
  p = fma(p, square, broadcast(1.0f / 9));
  p = fma(p, square, broadcast(1.0f / 7));
  p = fma(p, square, broadcast(1.0f / 5));
  p = fma(p, square, broadcast(1.0f / 3));
  F32x16 twice = add(s, s);
  return fma(multiply(p, square), twice, twice);
}

// log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)).
inline F32x16 softplus(F32x16 x) {
  F32x16 negated = subtract(zero_f32(), x);
  F32x16 small = log_one_plus(exponential(minimum(x, negated)));
  return add(maximum(zero_f32(), x), small);
}

void delta_gates(const DeltaGatesTask& task) {
  for_lanes(task.heads, [&](size_t i, uint32_t count) {
    F32x16 step =
        softplus(add(load_up_to(task.decay_input + i, count), load_up_to(task.decay_bias + i, count)));
    store_up_to(task.decay + i, exponential(multiply(load_up_to(task.decay_factor + i, count), step)), count);
    store_up_to(task.rate + i, logistic(load_up_to(task.rate_input + i, count)), count);
  });
}

// `vectors` vectors of 16 columns; if they are not whole, there is one, of `partial` columns.
template <int vectors, bool whole>
inline void delta_columns(const DeltaTask& task, uint32_t column, uint32_t partial) {
  static_assert(whole || vectors == 1);
  const uint32_t lanes = whole ? 16 : partial;
  for (uint32_t t = 0; t < task.row_count; ++t) {
    const float* key = task.keys + size_t{t} * task.key_dim;
    const float* query = task.queries + size_t{t} * task.key_dim;
    const float* value = task.values + t * task.value_stride + column;
    float* output = task.output + t * task.output_stride + column;
    const F32x16 decay = broadcast(task.decay[t * task.gate_stride]);
    const F32x16 rate = broadcast(task.rate[t * task.gate_stride]);
    F32x16 sums[2][vectors], change[vectors];
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) sums[0][v] = sums[1][v] = zero_f32();
    auto recall = [&](uint32_t k, F32x16* sum) {
      const float* row = task.state + size_t{k} * task.columns + column;
      const F32x16 by = broadcast(key[k]);
#pragma GCC unroll kUnroll
      for (int v = 0; v < vectors; ++v)
        sum[v] = fma(multiply(load_up_to(row + 16 * v, lanes), decay), by, sum[v]);
    };
    uint32_t k = 0;
    for (; k + 2 <= task.key_dim; k += 2) {
      recall(k, sums[0]);
      recall(k + 1, sums[1]);
    }
    if (k < task.key_dim) recall(k, sums[0]);
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) {
      F32x16 recalled = add(sums[0][v], sums[1][v]);
      change[v] = multiply(subtract(load_up_to(value + 16 * v, lanes), recalled), rate);
      sums[0][v] = sums[1][v] = zero_f32();
    }
    auto update = [&](uint32_t at, F32x16* sum) {
      float* row = task.state + size_t{at} * task.columns + column;
      const F32x16 by = broadcast(key[at]), seen = broadcast(query[at]);
#pragma GCC unroll kUnroll
      for (int v = 0; v < vectors; ++v) {
        F32x16 state = fma(change[v], by, multiply(load_up_to(row + 16 * v, lanes), decay));
        store_up_to(row + 16 * v, state, lanes);
        sum[v] = fma(state, seen, sum[v]);
      }
    };
    for (k = 0; k + 2 <= task.key_dim; k += 2) {
      update(k, sums[0]);
      update(k + 1, sums[1]);
    }
    if (k < task.key_dim) update(k, sums[0]);
#pragma GCC unroll kUnroll
    for (int v = 0; v < vectors; ++v) {
      store_up_to(output + 16 * v, add(sums[0][v], sums[1][v]), lanes);
    }
  }
}

void delta_rule(const DeltaTask& task) {
  if (task.columns == kDeltaColumns) return delta_columns<kDeltaColumns / 16, true>(task, 0, 16);
  uint32_t column = 0;
  for (; column + 16 <= task.columns; column += 16) delta_columns<1, true>(task, column, 16);
  if (column < task.columns) delta_columns<1, false>(task, column, task.columns - column);
}

}  // namespace
}  // namespace shoal::engine::cpu
