// CpuBackend: rotary positions and attention over the cache.
#include "base/assert.h"
#include "engine/cpu/cpu_backend_state.h"

namespace shoal::engine {

CpuTensor CpuBackend::rope(Tensor x, const StepView& step, const RopeOp& op, uint32_t head_size) {
  auto pairs = static_cast<uint32_t>(op.inverse_frequencies.size());
  SHOAL_ASSERT(pairs * 2 == op.dimensions && op.dimensions <= head_size && x.columns % head_size == 0);
  SHOAL_ASSERT(x.rows == step.positions.size());
  const CpuRopeTable& table = state_->rope_table(step, op);
  auto rotate =
      op.pairs == RopePairs::halves ? state_->kernels.rope_halves : state_->kernels.rope_interleaved;
  state_->for_rows(x.rows, x.columns, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      for (uint32_t head = 0; head < x.columns; head += head_size) {
        rotate(x.row(row) + head, table.cosines + size_t{row} * pairs, table.sines + size_t{row} * pairs,
               pairs);
      }
    }
  });
  return x;
}

CpuTensor CpuBackend::attend(Tensor queries, Tensor keys, Tensor values, const StepView& step,
                             const AttentionOp& op, const Weight* sinks) {
  SHOAL_ASSERT(sinks == nullptr || sinks->vector.size() == op.query_heads);
  cpu::KvCache& cache = state_->kv;
  SHOAL_ASSERT(op.layer < cache.layer_count() && op.kv_heads == cache.kv_heads(op.layer) &&
               op.head_dim == cache.head_dim(op.layer) && op.query_heads % op.kv_heads == 0);
  SHOAL_ASSERT(queries.columns == op.query_heads * op.head_dim && keys.columns == op.kv_heads * op.head_dim &&
               values.columns == keys.columns);
  for (const SequenceRows& sequence : step.sequences) {
    state_->for_rows(sequence.row_count, keys.columns, [&](uint32_t first, uint32_t end) {
      for (uint32_t row = first; row < end; ++row) {
        uint32_t step_row = sequence.first_row + row;
        cache.append(state_->kernels, op.layer, sequence.pages, sequence.context_tokens + row,
                     keys.row(step_row), values.row(step_row));
      }
    });
  }
  Tensor result = state_->allocate(queries.rows, queries.columns);
  state_->attention.run(cache, step, op, queries.data, sinks == nullptr ? nullptr : sinks->vector.data(),
                        result.data);
  return result;
}

CpuTensor CpuBackend::attend_latent(Tensor, Tensor, Tensor, Tensor, const StepView&,
                                    const LatentAttentionOp&) {
  SHOAL_ASSERT(false);  // not there yet
  return {};
}

}  // namespace shoal::engine
