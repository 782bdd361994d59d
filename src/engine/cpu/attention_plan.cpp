#include "engine/cpu/attention_plan.h"

#include <algorithm>

namespace shoal::engine::cpu {
namespace {

// Multiply-adds below which waking threads costs more than it brings.
constexpr uint64_t kSerialMultiplyAdds = 128 << 10;

Kernels::Attend attend_of(const Kernels& kernels, KvType type) {
  switch (type) {
    case KvType::f32:
      return kernels.attend_f32;
    case KvType::f16:
      return kernels.attend_f16;
    case KvType::q8:
      return kernels.attend_q8;
  }
  return kernels.attend_f32;
}

}  // namespace

AttentionPlan::AttentionPlan(const Kernels& kernels, ThreadPool& pool, uint32_t largest_head_dim)
    : kernels_(kernels), pool_(pool) {
  scratch_.assign(pool.thread_count(), std::vector<float>(attention_scratch_floats(largest_head_dim)));
}

uint64_t AttentionPlan::cut(const StepView& step, const AttentionOp& op) {
  tiles_.clear();
  uint64_t scores = 0;
  uint32_t group = op.query_heads / op.kv_heads;
  uint32_t tile_heads = std::min(group, kAttentionQueries), tile_rows = kAttentionQueries / tile_heads;
  for (uint32_t s = 0; s < step.sequences.size(); ++s) {
    const SequenceRows& sequence = step.sequences[s];
    scores += uint64_t{sequence.row_count} * op.query_heads * (sequence.context_tokens + sequence.row_count);
    for (uint32_t kv_head = 0; kv_head < op.kv_heads; ++kv_head) {
      for (uint32_t row = 0; row < sequence.row_count; row += tile_rows) {
        for (uint32_t head = 0; head < group; head += tile_heads) {
          tiles_.push_back({.sequence = s,
                            .first_row = row,
                            .row_count = std::min(tile_rows, sequence.row_count - row),
                            .kv_head = kv_head,
                            .first_head = kv_head * group + head,
                            .head_count = std::min(tile_heads, group - head)});
        }
      }
    }
  }
  return scores;
}

void AttentionPlan::run(const KvCache& cache, const StepView& step, const AttentionOp& op,
                        const float* queries, const float* sinks, float* output) {
  uint64_t scores = cut(step, op);
  size_t row_floats = size_t{op.query_heads} * op.head_dim;
  Kernels::Attend attend = attend_of(kernels_, cache.config().type);
  auto attend_tile = [&](uint32_t index, unsigned thread) {
    const Tile& tile = tiles_[index];
    const SequenceRows& sequence = step.sequences[tile.sequence];
    AttentionTask task = {};
    cache.locate(task, op.layer, tile.kv_head, sequence.pages);
    task.scale = op.scale;
    task.softcap = op.softcap;
    task.has_sinks = sinks != nullptr;
    task.scratch = scratch_[thread].data();
    for (uint32_t row = tile.first_row; row < tile.first_row + tile.row_count; ++row) {
      uint32_t end = sequence.context_tokens + row + 1;
      for (uint32_t head = tile.first_head; head < tile.first_head + tile.head_count; ++head) {
        size_t offset = (sequence.first_row + row) * row_floats + size_t{head} * op.head_dim;
        uint32_t query = task.query_count++;
        task.queries[query] = queries + offset;
        task.outputs[query] = output + offset;
        if (sinks != nullptr) task.sinks[query] = sinks[head];
        task.first_visible[query] = op.window != 0 && end > op.window ? end - op.window : 0;
        task.end_visible[query] = end;
      }
    }
    attend(task);
  };
  if (scores * op.head_dim * 2 <= kSerialMultiplyAdds) {
    for (uint32_t index = 0; index < tiles_.size(); ++index) attend_tile(index, 0);
  } else {
    pool_.run(static_cast<uint32_t>(tiles_.size()), attend_tile);
  }
}

}  // namespace shoal::engine::cpu
