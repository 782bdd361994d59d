// What a CpuBackend holds, for the files that implement its ops.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "engine/cpu/arena.h"
#include "engine/cpu/attention_plan.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/expert_plan.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/kv_cache.h"
#include "engine/cpu/latent_plan.h"
#include "engine/cpu/matrix_product.h"
#include "engine/cpu/recurrent_states.h"
#include "engine/cpu/rope_table.h"
#include "engine/cpu/thread_pool.h"

namespace shoal::engine {

// A rope table of this step, for the layers that share it.
struct CpuRopeTable {
  const float* frequencies;
  const float* long_frequencies;
  uint32_t long_after_tokens;
  size_t pairs;
  float magnitude;
  float* cosines;  // [rows, pairs]
  float* sines;    // [rows, pairs]
  cpu::ArenaBlock memory;
};

struct CpuBackend::State {
  static constexpr uint64_t kSerialValues = 32
                                            << 10;  // elementwise work that is not worth waking a thread for

  State(CpuBackendOptions given, const cpu::Kernels& chosen, cpu::KvCache cache, cpu::RecurrentStates slots,
        unsigned threads)
      : options(std::move(given)),
        kernels(chosen),
        kv(std::move(cache)),
        states(std::move(slots)),
        pool(threads, options.cores),
        product(kernels, pool, arena),
        attention(kernels, pool, largest_head_dim(options.kv_layers)),
        latent(kernels, pool) {}

  static uint32_t largest_head_dim(std::span<const KvLayerShape> layers) {
    uint32_t largest = 1;
    for (const KvLayerShape& layer : layers) largest = std::max(largest, layer.head_dim);
    return largest;
  }

  Tensor allocate(uint32_t rows, uint32_t columns) {
    cpu::ArenaBlock memory = arena.allocate_floats(size_t{rows} * columns);
    return {memory.floats(), rows, columns, std::move(memory)};
  }

  void note(Result<> exchange) {
    if (!exchange) failure = std::move(exchange.error());
  }

  // Calls function(first, end) for ranges of the rows of a tensor.
  template <class Function>
  void for_rows(uint32_t rows, uint32_t columns, Function function) {
    if (uint64_t{rows} * columns <= kSerialValues) return function(0u, rows);
    uint32_t tasks = std::min(rows, pool.thread_count() * 4);
    pool.run(tasks, [&](uint32_t task, unsigned) {
      function(static_cast<uint32_t>(uint64_t{rows} * task / tasks),
               static_cast<uint32_t>(uint64_t{rows} * (task + 1) / tasks));
    });
  }

  const CpuRopeTable& rope_table(const StepView& step, const RopeOp& op) {
    size_t pairs = op.inverse_frequencies.size();
    for (const CpuRopeTable& table : rope_tables) {
      if (table.frequencies == op.inverse_frequencies.data() && table.pairs == pairs &&
          table.magnitude == op.magnitude && table.long_frequencies == op.long_inverse_frequencies.data() &&
          table.long_after_tokens == op.long_after_tokens) {
        return table;
      }
    }
    auto rows = static_cast<uint32_t>(step.positions.size());
    cpu::ArenaBlock memory = arena.allocate_floats(2 * rows * pairs);
    float *cosines = memory.floats(), *sines = cosines + rows * pairs;
    for_rows(rows, static_cast<uint32_t>(pairs * 8), [&](uint32_t first, uint32_t end) {
      cpu::fill_rope_table(op, step, first, end, cosines, sines);
    });
    return rope_tables.emplace_back(op.inverse_frequencies.data(), op.long_inverse_frequencies.data(),
                                    op.long_after_tokens, pairs, op.magnitude, cosines, sines,
                                    std::move(memory));
  }

  // Parts of experts: act(gate(x), up(x)) for the slots of `parts`, which go on from one another, [slots, F];
  // down() of that, [slots, D].
  Tensor expert_inputs(const Tensor& x, const cpu::ExpertPlan& plan,
                       std::span<const cpu::ExpertPlan::Part> parts, const ExpertWeights<Weight>& weights,
                       const Activation& activation, CpuBackend& backend);
  Tensor expert_outputs(const Tensor& inner, std::span<const cpu::ExpertPlan::Part> parts,
                        const ExpertWeights<Weight>& weights);
  void add_expert_bias(const Tensor& rows, std::span<const cpu::ExpertPlan::Part> parts, const Weight& bias);

  // Parts of delta_net: the channels convolved, with queries and keys normalised, head by head; then the
  // rule.
  Tensor convolve(const Tensor& queries, const Tensor& keys, const Tensor& values, const Weight& taps,
                  const StepView& step, const DeltaNetOp& op);
  Tensor apply_delta_rule(const Tensor& mixed, const Tensor& factors, const Tensor& rates,
                          const StepView& step, const DeltaNetOp& op);

  CpuBackendOptions options;
  const cpu::Kernels& kernels;
  cpu::KvCache kv;
  cpu::RecurrentStates states;
  cpu::ThreadPool pool;
  cpu::Arena arena;
  cpu::MatrixProduct product;
  cpu::AttentionPlan attention;
  cpu::LatentPlan latent;
  std::vector<CpuRopeTable> rope_tables;
  Tensor returned;               // keeps the last output's values until the next step
  std::optional<Error> failure;  // of the rank group, in this step
  uint64_t weight_bytes = 0;
};

}  // namespace shoal::engine
