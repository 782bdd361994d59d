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
               op.head_dim == cache.head_dim(op.layer));
  const uint64_t heads_end = uint64_t{op.skipped_heads} + op.query_heads, group = op.group();
  SHOAL_ASSERT(op.skipped_heads < group && heads_end <= op.kv_heads * group &&
               heads_end > (op.kv_heads - 1) * group);
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

CpuTensor CpuBackend::attend_latent(Tensor queries, Tensor rotated_queries, Tensor latent, Tensor rotated,
                                    const StepView& step, const LatentAttentionOp& op) {
  cpu::KvCache& cache = state_->kv;
  SHOAL_ASSERT(op.layer < cache.layer_count() && op.latent_rank != 0 && op.query_heads != 0 &&
               op.latent_rank == cache.latent_rank(op.layer) && op.rope_dim == cache.latent_rope(op.layer));
  SHOAL_ASSERT(queries.columns == op.query_heads * op.latent_rank &&
               rotated_queries.columns == op.query_heads * op.rope_dim && latent.columns == op.latent_rank &&
               rotated.columns == op.rope_dim);
  for (const SequenceRows& sequence : step.sequences) {
    state_->for_rows(sequence.row_count, op.latent_rank, [&](uint32_t first, uint32_t end) {
      for (uint32_t row = first; row < end; ++row) {
        const uint32_t step_row = sequence.first_row + row;
        cache.append_latent(state_->kernels, op.layer, sequence.pages, sequence.context_tokens + row,
                            latent.row(step_row), rotated.row(step_row));
      }
    });
  }
  Tensor result = state_->allocate(queries.rows, queries.columns);
  state_->latent.run(cache, step, op, queries.data, rotated_queries.data, result.data);
  return result;
}

}  // namespace shoal::engine
