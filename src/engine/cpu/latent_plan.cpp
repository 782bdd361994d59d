#include "engine/cpu/latent_plan.h"

#include <algorithm>
#include <array>

namespace shoal::engine::cpu {
namespace {

// Multiply-adds below which waking threads costs more than it brings.
constexpr uint64_t kSerialMultiplyAdds = 128 << 10;
// Tasks a thread should get, for balance.
constexpr uint32_t kTasksPerThread = 8;
// Tiles of a block: their states stay in the second-level cache beside a span of latent rows.
constexpr uint32_t kMaxBlockTiles = 8;
// States of pieces, in floats; beyond, tiles are not split.
constexpr size_t kMaxPieceFloats = 32 << 20;

Kernels::AttendLatent attend_of(const Kernels& kernels, KvType type) {
  switch (type) {
    case KvType::f32:
      return kernels.latent_f32;
    case KvType::f16:
      return kernels.latent_f16;
    case KvType::q8:
      return kernels.latent_q8;
  }
  return kernels.latent_f32;
}

uint32_t context_of(const LatentTask& task) {
  return task.end_visible[task.query_count - 1];
}

// [values][16 lanes]; lanes without a query are 0.
void gather_queries(const LatentTask& task, const float* queries, const float* rotated, float* to) {
  const size_t rank = task.latent_rank, rope = task.rope_dim;
  std::fill_n(to, (rank + rope) * kLatentQueries, 0.0f);
  for (size_t q = 0; q < task.query_count; ++q) {
    for (size_t d = 0; d < rank; ++d) to[d * kLatentQueries + q] = queries[q * rank + d];
    for (size_t d = 0; d < rope; ++d) to[(rank + d) * kLatentQueries + q] = rotated[q * rope + d];
  }
}

void set_span(LatentTask& task, uint32_t span) {
  task.begin = span * kAttentionSpan;
  task.end = std::min(context_of(task), task.begin + kAttentionSpan);
}

void grow(std::vector<float>& floats, size_t size) {
  if (floats.size() < size) floats.resize(size);
}

}  // namespace

LatentPlan::LatentPlan(const Kernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), scratch_(pool.thread_count()) {}

uint64_t LatentPlan::cut(const KvCache& cache, const StepView& step, const Inputs& inputs) {
  const LatentAttentionOp& op = inputs.op;
  tiles_.clear();
  uint64_t multiply_adds = 0;
  for (uint32_t s = 0; s < step.sequences.size(); ++s) {
    const SequenceRows& sequence = step.sequences[s];
    const uint64_t query_count = uint64_t{sequence.row_count} * op.query_heads;
    for (uint64_t first = 0; first < query_count; first += kLatentQueries) {
      Tile& tile = tiles_.emplace_back();
      LatentTask& task = tile.task;
      cache.locate(task, op.layer, sequence.pages);
      tile.sequence = s;
      tile.first_query = size_t{sequence.first_row} * op.query_heads + first;
      task.scale = op.scale;
      task.cached_tokens = sequence.context_tokens + sequence.row_count;
      task.query_count = static_cast<uint32_t>(std::min<uint64_t>(kLatentQueries, query_count - first));
      for (uint32_t i = 0; i < task.query_count; ++i) {
        const auto row = static_cast<uint32_t>((first + i) / op.query_heads);
        task.end_visible[i] = sequence.context_tokens + row + 1;
      }
      tile.span_count = (context_of(task) + kAttentionSpan - 1) / kAttentionSpan;
      multiply_adds += uint64_t{context_of(task)} * task.query_count * (2 * op.latent_rank + op.rope_dim);
    }
  }
  return multiply_adds;
}

void LatentPlan::finish(const Inputs& inputs, const Tile& tile, const float* state) const {
  std::array<float*, kLatentQueries> outputs = {};
  for (size_t q = 0; q < tile.task.query_count; ++q)
    outputs[q] = inputs.output + (tile.first_query + q) * inputs.op.latent_rank;
  kernels_.latent_finish(tile.task, state, outputs.data());
}

void LatentPlan::attend_block(const Inputs& inputs, uint32_t first, uint32_t end, Scratch& scratch) const {
  const size_t values = size_t{inputs.op.latent_rank} + inputs.op.rope_dim;
  const size_t query_floats = values * kLatentQueries, state_floats = inputs.state.floats;
  grow(scratch.queries, (end - first) * query_floats);
  grow(scratch.states, (end - first) * state_floats);
  grow(scratch.part, state_floats);
  uint32_t span_count = 0;
  for (uint32_t index = first; index < end; ++index) {
    const Tile& tile = tiles_[index];
    gather_queries(tile.task, inputs.queries + tile.first_query * inputs.op.latent_rank,
                   inputs.rotated + tile.first_query * inputs.op.rope_dim,
                   scratch.queries.data() + (index - first) * query_floats);
    span_count = std::max(span_count, tile.span_count);
  }
  for (uint32_t span = 0; span < span_count; ++span) {
    for (uint32_t index = first; index < end; ++index) {
      if (span >= tiles_[index].span_count) continue;
      LatentTask task = tiles_[index].task;
      float* state = scratch.states.data() + (index - first) * state_floats;
      set_span(task, span);
      task.queries = scratch.queries.data() + (index - first) * query_floats;
      task.state = span == 0 ? state : scratch.part.data();
      inputs.attend(task);
      if (span != 0) kernels_.latent_fold(task, task.state, state);
    }
  }
  for (uint32_t index = first; index < end; ++index)
    finish(inputs, tiles_[index], scratch.states.data() + (index - first) * state_floats);
}

bool LatentPlan::split(const Inputs& inputs) {
  if (pool_.thread_count() == 1 || tiles_.size() >= size_t{kTasksPerThread} * pool_.thread_count())
    return false;
  pieces_.clear();
  for (uint32_t index = 0; index < tiles_.size(); ++index) {
    tiles_[index].first_piece = static_cast<uint32_t>(pieces_.size());
    for (uint32_t span = 0; span < tiles_[index].span_count; ++span) pieces_.push_back({index, span});
  }
  const size_t floats = pieces_.size() * inputs.state.floats;
  if (pieces_.size() == tiles_.size() || floats > kMaxPieceFloats) return false;
  grow(piece_states_, floats);
  return true;
}

void LatentPlan::attend_pieces(const Inputs& inputs) {
  const size_t values = size_t{inputs.op.latent_rank} + inputs.op.rope_dim;
  const auto state_of = [&](size_t piece) { return piece_states_.data() + piece * inputs.state.floats; };
  pool_.run(static_cast<uint32_t>(pieces_.size()), [&](uint32_t index, unsigned thread) {
    const Tile& tile = tiles_[pieces_[index].tile];
    std::vector<float>& gathered = scratch_[thread].queries;
    grow(gathered, values * kLatentQueries);
    gather_queries(tile.task, inputs.queries + tile.first_query * inputs.op.latent_rank,
                   inputs.rotated + tile.first_query * inputs.op.rope_dim, gathered.data());
    LatentTask task = tile.task;
    set_span(task, pieces_[index].span);
    task.queries = gathered.data();
    task.state = state_of(index);
    inputs.attend(task);
  });
  pool_.run(static_cast<uint32_t>(tiles_.size()), [&](uint32_t index, unsigned) {
    const Tile& tile = tiles_[index];
    float* state = state_of(tile.first_piece);
    LatentTask task = tile.task;
    for (uint32_t span = 1; span < tile.span_count; ++span) {
      set_span(task, span);
      kernels_.latent_fold(task, state_of(tile.first_piece + span), state);
    }
    finish(inputs, tile, state);
  });
}

// Blocks end where the sequence does; there are enough of them for all threads.
void LatentPlan::cut_blocks() {
  const size_t tasks = size_t{kTasksPerThread} * pool_.thread_count();
  const auto most = static_cast<uint32_t>(std::clamp<size_t>(tiles_.size() / tasks, 1, kMaxBlockTiles));
  first_tiles_.clear();
  for (uint32_t index = 0; index < tiles_.size(); ++index) {
    if (index != 0 && index - first_tiles_.back() < most && tiles_[index].span_count > 1 &&
        tiles_[index].sequence == tiles_[index - 1].sequence)
      continue;
    first_tiles_.push_back(index);
  }
  first_tiles_.push_back(static_cast<uint32_t>(tiles_.size()));
}

void LatentPlan::run(const KvCache& cache, const StepView& step, const LatentAttentionOp& op,
                     const float* queries, const float* rotated, float* output) {
  const Inputs inputs = {.op = op,
                         .queries = queries,
                         .rotated = rotated,
                         .output = output,
                         .attend = attend_of(kernels_, cache.config().type),
                         .state = latent_state(op.latent_rank)};
  const uint64_t multiply_adds = cut(cache, step, inputs);
  if (multiply_adds <= kSerialMultiplyAdds) {
    for (uint32_t tile = 0; tile < tiles_.size(); ++tile) attend_block(inputs, tile, tile + 1, scratch_[0]);
  } else if (split(inputs)) {
    attend_pieces(inputs);
  } else {
    cut_blocks();
    const auto block_count = static_cast<uint32_t>(first_tiles_.size() - 1);
    pool_.run(block_count, [&](uint32_t task, unsigned thread) {
      const uint32_t block = block_count - 1 - task;  // the last rows see most: they begin
      attend_block(inputs, first_tiles_[block], first_tiles_[block + 1], scratch_[thread]);
    });
  }
}

}  // namespace shoal::engine::cpu
