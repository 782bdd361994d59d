// Scores of experts and weighted sums of what they give, over sixteen lanes. Include after a lanes.h.
//
// The order of operations: softmax takes its maximum and its sum over 16 lanes (expert % 16), folded by the
// fixed tree, and divides each exp(x - maximum) by the sum.
#pragma once

#include "engine/cpu/sixteen_lanes/elementwise.h"

namespace shoal::engine::cpu {
namespace {

void softmax_scores(const float* logits, uint32_t size, float* output) {
  const F32x16 nothing = broadcast(-__builtin_inff());
  F32x16 largest = nothing;
  for_lanes(size, [&](size_t i, uint32_t count) {
    largest = maximum(largest, select_range(0, count, load_up_to(logits + i, count), nothing));
  });
  const F32x16 top = broadcast(fold_maximum(largest));
  F32x16 sums = zero_f32();
  for_lanes(size, [&](size_t i, uint32_t count) {
    F32x16 score = exponential(subtract(load_up_to(logits + i, count), top));
    sums = add(sums, select_range(0, count, score, zero_f32()));
    store_up_to(output + i, score, count);
  });
  const F32x16 sum = broadcast(fold_add(sums));
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, divide(load_up_to(output + i, count), sum), count);
  });
}

void sigmoid_scores(const float* logits, uint32_t size, float* output) {
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, logistic(load_up_to(logits + i, count)), count);
  });
}

void add_scaled(const float* input, float factor, size_t size, float* sum) {
  const F32x16 by = broadcast(factor);
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(sum + i, fma(load_up_to(input + i, count), by, load_up_to(sum + i, count)), count);
  });
}

void gate_row(float* row, float gate, size_t size) {
  const F32x16 factor = logistic(broadcast(gate));
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(row + i, multiply(load_up_to(row + i, count), factor), count);
  });
}

}  // namespace
}  // namespace shoal::engine::cpu
