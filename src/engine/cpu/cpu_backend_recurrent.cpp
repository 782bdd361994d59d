// CpuBackend: the gated delta rule and the states it keeps.
//
// A layer's state of a sequence: the convolution's last inputs [kernel - 1, channels], then per value head
// its matrix, in blocks of up to 64 columns [key_dim, columns] that lie one after the other. Columns do not
// meet, so a block is a task; the tokens of a chunk pass through it one by one, which is why chunks cannot
// change a bit.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/assert.h"
#include "engine/cpu/cpu_backend_state.h"

namespace shoal::engine {
namespace {

// Multiply-adds below which waking threads costs more than it brings.
constexpr uint64_t kSerialWork = 64 << 10;

template <class Function>
void run_tasks(cpu::ThreadPool& pool, size_t count, uint64_t work, Function function) {
  SHOAL_ASSERT(count <= UINT32_MAX);
  if (work > kSerialWork) return pool.run(static_cast<uint32_t>(count), function);
  for (uint32_t task = 0; task < count; ++task) function(task, 0u);
}

// The convolved channels lie head by head, [rows, size] each, so that the tokens of a head are neighbours:
// where the head that starts at `channel` has its row `row`.
float* head_rows(const CpuTensor& mixed, uint32_t channel, uint32_t size, uint32_t row) {
  return mixed.data + size_t{channel} * mixed.rows + size_t{row} * size;
}

}  // namespace

CpuTensor CpuBackend::delta_net(Tensor queries, Tensor keys, Tensor values, Tensor decay_input,
                                Tensor rate_input, const Weight& taps, const Weight& decay_bias,
                                const Weight& decay, const StepView& step, const DeltaNetOp& op) {
  const cpu::RecurrentStates& states = state_->states;
  const uint32_t heads = op.value_heads, channels = op.channels(), past = op.kernel - 1;
  SHOAL_ASSERT(op.key_heads > 0 && (op.tiled || heads % op.key_heads == 0) && op.kernel > 0 &&
               op.kernel <= cpu::kMaxTaps);
  SHOAL_ASSERT(queries.columns == op.key_heads * op.key_dim && keys.columns == queries.columns &&
               values.columns == heads * op.value_dim && decay_input.columns == heads &&
               rate_input.columns == heads);
  SHOAL_ASSERT(taps.vector.size() == size_t{channels} * op.kernel && decay_bias.vector.size() == heads &&
               decay.vector.size() == heads);
  SHOAL_ASSERT(op.layer < states.layer_count() &&
               states.floats(op.layer) ==
                   uint64_t{past} * channels + uint64_t{heads} * op.key_dim * op.value_dim);
  for (const Tensor& tensor : {queries, keys, values, decay_input, rate_input})
    SHOAL_ASSERT(tensor.rows == step.positions.size());

  const Tensor mixed = state_->convolve(queries, keys, values, taps, step, op);
  // [rows, heads] each
  const Tensor factors = state_->allocate(mixed.rows, heads), rates = state_->allocate(mixed.rows, heads);
  state_->for_rows(mixed.rows, heads * 8, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      state_->kernels.delta_gates({.heads = heads,
                                   .decay_input = decay_input.row(row),
                                   .decay_bias = decay_bias.vector.data(),
                                   .decay_factor = decay.vector.data(),
                                   .rate_input = rate_input.row(row),
                                   .decay = factors.row(row),
                                   .rate = rates.row(row)});
    }
  });
  return state_->apply_delta_rule(mixed, factors, rates, step, op);
}

// Task: one head of one sequence, whose channels are convolved and, for queries and keys, normalised.
CpuTensor CpuBackend::State::convolve(const Tensor& queries, const Tensor& keys, const Tensor& values,
                                      const Weight& taps, const StepView& step, const DeltaNetOp& op) {
  const Tensor mixed = allocate(queries.rows, op.channels());
  const uint32_t heads = 2 * op.key_heads + op.value_heads, past = op.kernel - 1;
  const float query_scale = 1.0f / std::sqrt(static_cast<float>(op.key_dim));
  auto convolve_head = [&](uint32_t task, unsigned) {
    const SequenceRows& sequence = step.sequences[task / heads];
    if (sequence.row_count == 0) return;
    const uint32_t head = task % heads;
    const bool is_query = head < op.key_heads, is_value = head >= 2 * op.key_heads;
    const Tensor& input = is_query ? queries : is_value ? values : keys;
    const uint32_t size = is_value ? op.value_dim : op.key_dim;
    const uint32_t column = size * (is_query   ? head
                                    : is_value ? head - 2 * op.key_heads
                                               : head - op.key_heads);
    const uint32_t channel = is_value ? 2 * op.key_heads * op.key_dim + column : head * op.key_dim;
    float* history = states.state(op.layer, sequence.state_slot) + channel;
    if (sequence.context_tokens == 0) {
      for (uint32_t row = 0; row < past; ++row)
        std::memset(history + size_t{row} * op.channels(), 0, size * sizeof(float));
    }
    float* output = head_rows(mixed, channel, size, sequence.first_row);
    kernels.convolve_silu({.input = input.row(sequence.first_row) + column,
                           .input_stride = input.columns,
                           .history = history,
                           .history_stride = op.channels(),
                           .weights = taps.vector.data() + size_t{channel} * op.kernel,
                           .taps = op.kernel,
                           .channels = size,
                           .row_count = sequence.row_count,
                           .output = output,
                           .output_stride = size});
    if (is_value) return;
    for (uint32_t row = 0; row < sequence.row_count; ++row)
      kernels.normalise_head(output + size_t{row} * size, size, is_query ? query_scale : 1.0f);
  };
  run_tasks(pool, step.sequences.size() * heads, uint64_t{mixed.rows} * op.channels() * (op.kernel + 8),
            convolve_head);
  return mixed;
}

// Task: one block of columns of one value head of one sequence.
CpuTensor CpuBackend::State::apply_delta_rule(const Tensor& mixed, const Tensor& factors, const Tensor& rates,
                                              const StepView& step, const DeltaNetOp& op) {
  const Tensor result = allocate(mixed.rows, op.value_heads * op.value_dim);
  const uint32_t blocks = (op.value_dim + cpu::kDeltaColumns - 1) / cpu::kDeltaColumns;
  const uint32_t tasks = op.value_heads * blocks, group = op.value_heads / op.key_heads;
  auto run_block = [&](uint32_t task, unsigned) {
    const SequenceRows& sequence = step.sequences[task / tasks];
    if (sequence.row_count == 0) return;
    const uint32_t head = task % tasks / blocks, column = task % blocks * cpu::kDeltaColumns;
    const uint32_t columns = std::min(cpu::kDeltaColumns, op.value_dim - column);
    const uint32_t key_head = op.tiled ? (op.skipped_heads + head) % op.key_heads : head / group;
    float* state = states.state(op.layer, sequence.state_slot) + size_t{op.kernel - 1} * op.channels() +
                   (size_t{head} * op.value_dim + column) * op.key_dim;
    if (sequence.context_tokens == 0) std::memset(state, 0, size_t{columns} * op.key_dim * sizeof(float));
    const uint32_t query = key_head * op.key_dim, key = (op.key_heads + key_head) * op.key_dim;
    const uint32_t value = 2 * op.key_heads * op.key_dim + head * op.value_dim;
    kernels.delta_rule({.state = state,
                        .key_dim = op.key_dim,
                        .columns = columns,
                        .queries = head_rows(mixed, query, op.key_dim, sequence.first_row),
                        .keys = head_rows(mixed, key, op.key_dim, sequence.first_row),
                        .values = head_rows(mixed, value, op.value_dim, sequence.first_row) + column,
                        .value_stride = op.value_dim,
                        .decay = factors.row(sequence.first_row) + head,
                        .rate = rates.row(sequence.first_row) + head,
                        .gate_stride = factors.columns,
                        .row_count = sequence.row_count,
                        .output = result.row(sequence.first_row) + size_t{head} * op.value_dim + column,
                        .output_stride = result.columns});
  };
  run_tasks(pool, step.sequences.size() * size_t{tasks},
            uint64_t{mixed.rows} * result.columns * op.key_dim * 2, run_block);
  return result;
}

}  // namespace shoal::engine
