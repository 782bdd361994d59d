#include "engine/cpu/attention_plan.h"

#include <algorithm>
#include <cstring>

namespace shoal::engine::cpu {
namespace {

// Multiply-adds below which waking threads costs more than it brings.
constexpr uint64_t kSerialMultiplyAdds = 128 << 10;
// Tasks a thread should get, for balance.
constexpr uint32_t kTasksPerThread = 8;
// Tiles of a block: their states stay in the second-level cache beside a span of keys and values.
constexpr uint32_t kMaxBlockTiles = 16;
// States of pieces, in floats; beyond, tiles are not split.
constexpr size_t kMaxPieceFloats = 32 << 20;

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
    : kernels_(kernels), pool_(pool), scratch_(pool.thread_count()) {
  for (Scratch& scratch : scratch_) {
    scratch.kernel.resize(attention_scratch_floats(largest_head_dim));
    scratch.parts.resize(kAttentionQueries * attention_state_floats(largest_head_dim));
  }
}

uint64_t AttentionPlan::cut(const StepView& step, const AttentionOp& op) {
  tiles_.clear();
  uint64_t scores = 0;
  const uint32_t group = op.group();
  uint32_t tile_heads = std::min(group, kAttentionQueries), tile_rows = kAttentionQueries / tile_heads;
  for (uint32_t s = 0; s < step.sequences.size(); ++s) {
    const SequenceRows& sequence = step.sequences[s];
    scores += uint64_t{sequence.row_count} * op.query_heads * (sequence.context_tokens + sequence.row_count);
    for (uint32_t kv_head = 0; kv_head < op.kv_heads; ++kv_head) {
      // The first and the last kv head may serve others as well.
      const uint32_t first_head = std::max(kv_head * group, op.skipped_heads) - op.skipped_heads;
      const uint32_t end_head = std::min((kv_head + 1) * group - op.skipped_heads, op.query_heads);
      for (uint32_t row = 0; row < sequence.row_count; row += tile_rows) {
        for (uint32_t head = first_head; head < end_head; head += tile_heads) {
          tiles_.push_back({.sequence = s,
                            .first_row = row,
                            .row_count = std::min(tile_rows, sequence.row_count - row),
                            .kv_head = kv_head,
                            .first_head = head,
                            .head_count = std::min(tile_heads, end_head - head)});
        }
      }
    }
  }
  return scores;
}

AttentionPlan::Visible AttentionPlan::visible(const Inputs& inputs, const Tile& tile, uint32_t query) {
  const uint32_t row = tile.first_row + query / tile.head_count, window = inputs.op.window;
  const uint32_t end = inputs.step.sequences[tile.sequence].context_tokens + row + 1;
  return {window != 0 && end > window ? end - window : 0, end};
}

// Rows ascend, so the first query sees the first token and the last one the last.
AttentionPlan::Visible AttentionPlan::spans(const Inputs& inputs, const Tile& tile) {
  const uint32_t first = visible(inputs, tile, 0).begin;
  const uint32_t last = visible(inputs, tile, tile.query_count() - 1).end;
  return {first / kAttentionSpan, (last + kAttentionSpan - 1) / kAttentionSpan};
}

size_t AttentionPlan::offset_of(const Inputs& inputs, const Tile& tile, uint32_t query) {
  const size_t row =
      inputs.step.sequences[tile.sequence].first_row + tile.first_row + query / tile.head_count;
  const size_t head = tile.first_head + query % tile.head_count;
  return (row * inputs.op.query_heads + head) * inputs.op.head_dim;
}

void AttentionPlan::gather_queries(const Inputs& inputs, const Tile& tile, float* to) {
  const uint32_t count = tile.query_count();
  for (uint32_t query = 0; query < count; ++query) {
    const float* from = inputs.queries + offset_of(inputs, tile, query);
    for (size_t d = 0; d < inputs.op.head_dim; ++d) to[d * count + query] = from[d];
  }
}

// All but where queries, states and scratch are.
AttentionTask AttentionPlan::task_of(const Inputs& inputs, const Tile& tile, uint32_t span) const {
  const SequenceRows& sequence = inputs.step.sequences[tile.sequence];
  AttentionTask task = {};
  inputs.cache.locate(task, inputs.op.layer, tile.kv_head, sequence.pages);
  task.query_count = tile.query_count();
  task.scale = inputs.op.scale;
  task.softcap = inputs.op.softcap;
  task.cached_tokens = sequence.context_tokens + sequence.row_count;
  for (uint32_t query = 0; query < task.query_count; ++query) {
    const Visible seen = visible(inputs, tile, query);
    task.begin[query] = std::max(seen.begin, span * kAttentionSpan);
    task.end[query] = std::min(seen.end, (span + 1) * kAttentionSpan);
    task.has_sink[query] = inputs.sinks != nullptr && span == seen.begin / kAttentionSpan;
    if (task.has_sink[query]) task.sinks[query] = inputs.sinks[tile.first_head + query % tile.head_count];
  }
  return task;
}

void AttentionPlan::attend_block(const Inputs& inputs, uint32_t first, uint32_t end, Scratch& scratch) const {
  const size_t tile_queries = size_t{kAttentionQueries} * inputs.op.head_dim;
  const size_t tile_states = kAttentionQueries * inputs.state_floats;
  if (scratch.queries.size() < (end - first) * tile_queries)
    scratch.queries.resize((end - first) * tile_queries);
  if (scratch.states.size() < (end - first) * tile_states) scratch.states.resize((end - first) * tile_states);
  Visible all = {UINT32_MAX, 0};
  for (uint32_t tile = first; tile < end; ++tile) {
    gather_queries(inputs, tiles_[tile], scratch.queries.data() + (tile - first) * tile_queries);
    const Visible seen = spans(inputs, tiles_[tile]);
    all = {std::min(all.begin, seen.begin), std::max(all.end, seen.end)};
  }
  for (uint32_t span = all.begin; span < all.end; ++span) {
    for (uint32_t index = first; index < end; ++index) {
      const Tile& tile = tiles_[index];
      float* states = scratch.states.data() + (index - first) * tile_states;
      AttentionTask task = task_of(inputs, tile, span);
      task.queries = scratch.queries.data() + (index - first) * tile_queries;
      task.scratch = scratch.kernel.data();
      const auto begins = [&](uint32_t query) {
        return span == visible(inputs, tile, query).begin / kAttentionSpan;
      };
      for (uint32_t query = 0; query < task.query_count; ++query)
        task.states[query] = (begins(query) ? states : scratch.parts.data()) + query * inputs.state_floats;
      inputs.attend(task);
      for (uint32_t query = 0; query < task.query_count; ++query) {
        if (task.begin[query] < task.end[query] && !begins(query))
          kernels_.attention_fold(task.states[query], inputs.op.head_dim,
                                  states + query * inputs.state_floats);
      }
    }
  }
  for (uint32_t index = first; index < end; ++index) {
    const float* states = scratch.states.data() + (index - first) * tile_states;
    for (uint32_t query = 0; query < tiles_[index].query_count(); ++query)
      kernels_.attention_finish(states + query * inputs.state_floats, inputs.op.head_dim,
                                inputs.output + offset_of(inputs, tiles_[index], query));
  }
}

bool AttentionPlan::split(const Inputs& inputs) {
  if (pool_.thread_count() == 1 || tiles_.size() >= size_t{kTasksPerThread} * pool_.thread_count())
    return false;
  pieces_.clear();
  first_pieces_.clear();
  size_t floats = 0;
  for (uint32_t index = 0; index < tiles_.size(); ++index) {
    const Visible seen = spans(inputs, tiles_[index]);
    first_pieces_.push_back(static_cast<uint32_t>(pieces_.size()));
    for (uint32_t span = seen.begin; span < seen.end; ++span) {
      pieces_.push_back({index, span, floats});
      floats += tiles_[index].query_count() * inputs.state_floats;
    }
  }
  if (pieces_.size() == tiles_.size() || floats > kMaxPieceFloats) return false;
  first_pieces_.push_back(static_cast<uint32_t>(pieces_.size()));
  if (piece_states_.size() < floats) piece_states_.resize(floats);
  return true;
}

void AttentionPlan::attend_pieces(const Inputs& inputs) {
  const size_t tile_queries = size_t{kAttentionQueries} * inputs.op.head_dim;
  for (Scratch& scratch : scratch_) {
    if (scratch.queries.size() < tile_queries) scratch.queries.resize(tile_queries);
  }
  pool_.run(static_cast<uint32_t>(pieces_.size()), [&](uint32_t index, unsigned thread) {
    const Piece& piece = pieces_[index];
    AttentionTask task = task_of(inputs, tiles_[piece.tile], piece.span);
    gather_queries(inputs, tiles_[piece.tile], scratch_[thread].queries.data());
    task.queries = scratch_[thread].queries.data();
    task.scratch = scratch_[thread].kernel.data();
    for (uint32_t query = 0; query < task.query_count; ++query)
      task.states[query] = piece_states_.data() + piece.states + query * inputs.state_floats;
    inputs.attend(task);
  });
  pool_.run(static_cast<uint32_t>(tiles_.size()),
            [&](uint32_t tile, unsigned) { fold_pieces(inputs, tile); });
}

void AttentionPlan::fold_pieces(const Inputs& inputs, uint32_t index) {
  const Tile& tile = tiles_[index];
  for (uint32_t query = 0; query < tile.query_count(); ++query) {
    const Visible seen = visible(inputs, tile, query);
    float* state = nullptr;
    for (uint32_t i = first_pieces_[index]; i < first_pieces_[index + 1]; ++i) {
      const uint32_t first_token = pieces_[i].span * kAttentionSpan;
      if (first_token >= seen.end || first_token + kAttentionSpan <= seen.begin) continue;
      float* part = piece_states_.data() + pieces_[i].states + query * inputs.state_floats;
      if (state == nullptr) {
        state = part;
      } else {
        kernels_.attention_fold(part, inputs.op.head_dim, state);
      }
    }
    kernels_.attention_finish(state, inputs.op.head_dim, inputs.output + offset_of(inputs, tile, query));
  }
}

// Blocks end where the sequence or the kv head does; there are enough of them for all threads. Contexts of
// one span are better off in small tasks.
void AttentionPlan::cut_blocks(const Inputs& inputs) {
  const size_t tasks = size_t{kTasksPerThread} * pool_.thread_count();
  const auto most = static_cast<uint32_t>(std::clamp<size_t>(tiles_.size() / tasks, 1, kMaxBlockTiles));
  first_tiles_.clear();
  for (uint32_t index = 0; index < tiles_.size(); ++index) {
    const Tile& tile = tiles_[index];
    if (index != 0 && index - first_tiles_.back() < most && spans(inputs, tile).end > 1 &&
        tile.sequence == tiles_[index - 1].sequence && tile.kv_head == tiles_[index - 1].kv_head)
      continue;
    first_tiles_.push_back(index);
  }
  first_tiles_.push_back(static_cast<uint32_t>(tiles_.size()));
}

void AttentionPlan::run(const KvCache& cache, const StepView& step, const AttentionOp& op,
                        const float* queries, const float* sinks, float* output) {
  const Inputs inputs = {.cache = cache,
                         .step = step,
                         .op = op,
                         .queries = queries,
                         .sinks = sinks,
                         .output = output,
                         .attend = attend_of(kernels_, cache.config().type),
                         .state_floats = attention_state_floats(op.head_dim)};
  const uint64_t scores = cut(step, op);
  const auto tile_count = static_cast<uint32_t>(tiles_.size());
  if (scores * op.head_dim * 2 <= kSerialMultiplyAdds) {
    for (uint32_t tile = 0; tile < tile_count; ++tile) attend_block(inputs, tile, tile + 1, scratch_[0]);
  } else if (split(inputs)) {
    attend_pieces(inputs);
  } else {
    cut_blocks(inputs);
    const auto block_count = static_cast<uint32_t>(first_tiles_.size() - 1);
    pool_.run(block_count, [&](uint32_t task, unsigned thread) {
      const uint32_t block = block_count - 1 - task;  // the last rows see most: they begin
      attend_block(inputs, first_tiles_[block], first_tiles_[block + 1], scratch_[thread]);
    });
  }
}

}  // namespace shoal::engine::cpu
