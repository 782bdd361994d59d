#include "engine/cpu/latent_plan.h"

#include <algorithm>

namespace shoal::engine::cpu {
namespace {

// Multiply-adds below which waking threads costs more than it brings.
constexpr uint64_t kSerialMultiplyAdds = 128 << 10;
constexpr uint32_t kColumns = 64;              // of outputs that a thread takes at once
constexpr uint64_t kMaxSplitTokens = 1 << 20;  // of all tiles; their scores take 64 bytes each

const Kernels::Latent& latent_of(const Kernels& kernels, KvType type) {
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

uint32_t context_of(const LatentTask& tile) {
  return tile.end_visible[tile.query_count - 1];
}

}  // namespace

LatentPlan::LatentPlan(const Kernels& kernels, ThreadPool& pool, size_t scratch_floats)
    : kernels_(kernels), pool_(pool) {
  scratch_.assign(pool.thread_count(), std::vector<float>(scratch_floats));
}

// Fills tiles_; returns the multiply-adds to do.
uint64_t LatentPlan::cut(const KvCache& cache, const StepView& step, const LatentAttentionOp& op,
                         const Inputs& inputs) {
  tiles_.clear();
  uint64_t multiply_adds = 0;
  for (const SequenceRows& sequence : step.sequences) {
    const uint64_t query_count = uint64_t{sequence.row_count} * op.query_heads;
    for (uint64_t first = 0; first < query_count; first += kLatentQueries) {
      LatentTask& tile = tiles_.emplace_back();
      cache.locate(tile, op.layer, sequence.pages);
      const size_t query = size_t{sequence.first_row} * op.query_heads + first;
      tile.queries = inputs.queries + query * op.latent_rank;
      tile.rotated_queries = inputs.rotated + query * op.rope_dim;
      tile.outputs = inputs.output + query * op.latent_rank;
      tile.scale = op.scale;
      tile.query_count = static_cast<uint32_t>(std::min<uint64_t>(kLatentQueries, query_count - first));
      for (uint32_t i = 0; i < tile.query_count; ++i) {
        const auto row = static_cast<uint32_t>((first + i) / op.query_heads);
        tile.end_visible[i] = sequence.context_tokens + row + 1;
      }
      multiply_adds += uint64_t{context_of(tile)} * tile.query_count * (2 * op.latent_rank + op.rope_dim);
    }
  }
  return multiply_adds;
}

void LatentPlan::run(const KvCache& cache, const StepView& step, const LatentAttentionOp& op,
                     const float* queries, const float* rotated, float* output) {
  const uint64_t multiply_adds = cut(cache, step, op, {queries, rotated, output});
  const Kernels::Latent& latent = latent_of(kernels_, cache.config().type);
  const auto tile_count = static_cast<uint32_t>(tiles_.size());
  const auto attend_tile = [&](uint32_t index, unsigned thread) {
    tiles_[index].scratch = scratch_[thread].data();
    latent.attend(tiles_[index]);
  };
  uint64_t tokens = 0;
  for (const LatentTask& tile : tiles_) tokens += context_of(tile);
  if (multiply_adds <= kSerialMultiplyAdds) {
    for (uint32_t index = 0; index < tile_count; ++index) attend_tile(index, 0);
  } else if (pool_.thread_count() > 1 && tile_count < 3 * pool_.thread_count() && tokens <= kMaxSplitTokens) {
    run_split(latent);
  } else {
    pool_.run(tile_count, attend_tile);
  }
}

void LatentPlan::run_split(const Kernels::Latent& latent) {
  const auto tile_count = static_cast<uint32_t>(tiles_.size());
  uint64_t runs = 0;
  for (const LatentTask& tile : tiles_) runs += (context_of(tile) + kAttentionRun - 1) / kAttentionRun;
  const auto piece_tokens = static_cast<uint32_t>(runs / (8 * pool_.thread_count()) + 1) * kAttentionRun;
  splits_.clear();
  pieces_.clear();
  size_t floats = 0;
  for (uint32_t index = 0; index < tile_count; ++index) {
    const uint32_t context = context_of(tiles_[index]);
    const size_t tile_runs = (size_t{context} + kAttentionRun - 1) / kAttentionRun;
    Split& split = splits_.emplace_back();
    split.scores = floats;
    split.rescale = split.scores + tile_runs * kAttentionRun * kLatentQueries;
    split.inverse = split.rescale + tile_runs * kLatentQueries;
    floats = split.inverse + kLatentQueries;
    for (uint32_t begin = 0; begin < context; begin += piece_tokens)
      pieces_.push_back({index, begin, std::min(context, begin + piece_tokens)});
  }
  if (split_floats_.size() < floats) split_floats_.resize(floats);
  float* const base = split_floats_.data();
  const auto task_of = [&](uint32_t index, unsigned thread) {
    LatentTask task = tiles_[index];
    task.scratch = scratch_[thread].data();
    return task;
  };
  pool_.run(static_cast<uint32_t>(pieces_.size()), [&](uint32_t index, unsigned thread) {
    const Piece& piece = pieces_[index];
    latent.scores(task_of(piece.tile, thread), piece.begin, piece.end, base + splits_[piece.tile].scores);
  });
  pool_.run(tile_count, [&](uint32_t index, unsigned thread) {
    const Split& split = splits_[index];
    kernels_.latent_soften(task_of(index, thread), base + split.scores, base + split.rescale,
                           base + split.inverse);
  });
  pieces_.clear();
  for (uint32_t index = 0; index < tile_count; ++index) {
    for (uint32_t column = 0; column < tiles_[index].latent_rank; column += kColumns)
      pieces_.push_back({index, column, std::min(tiles_[index].latent_rank, column + kColumns)});
  }
  pool_.run(static_cast<uint32_t>(pieces_.size()), [&](uint32_t index, unsigned thread) {
    const Piece& piece = pieces_[index];
    const Split& split = splits_[piece.tile];
    latent.mix(task_of(piece.tile, thread), base + split.scores, base + split.rescale, base + split.inverse,
               piece.begin, piece.end);
  });
}

}  // namespace shoal::engine::cpu
