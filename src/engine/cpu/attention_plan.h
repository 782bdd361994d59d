// Cuts the attention of a step into tiles: a few query vectors that share a kv head and a sequence.
// Neighbouring tiles make a block, a task that brings all of them through one span of the cache before the
// next, so that a span is read from memory once. When there are too few tiles for the threads (decode), each
// span of a tile is a task and their results are folded afterwards. Both ways fold the same spans in the same
// order, so bits do not depend on which was taken.
#pragma once

#include <vector>

#include "engine/backend.h"
#include "engine/cpu/kv_cache.h"
#include "engine/cpu/thread_pool.h"
#include "engine/step.h"

namespace shoal::engine::cpu {

class AttentionPlan {
 public:
  AttentionPlan(const Kernels& kernels, ThreadPool& pool, uint32_t largest_head_dim);

  // queries and output are [rows, query_heads * head_dim]; the step's keys and values are in the cache
  // already. sinks are [query_heads] or null.
  void run(const KvCache& cache, const StepView& step, const AttentionOp& op, const float* queries,
           const float* sinks, float* output);

 private:
  // What a call of run() was given.
  struct Inputs {
    const KvCache& cache;
    const StepView& step;
    const AttentionOp& op;
    const float* queries;
    const float* sinks;
    float* output;
    Kernels::Attend attend;
    size_t state_floats;
  };
  struct Tile {
    uint32_t sequence;
    uint32_t first_row;  // within the sequence's rows
    uint32_t row_count;
    uint32_t kv_head;
    uint32_t first_head;
    uint32_t head_count;

    uint32_t query_count() const { return row_count * head_count; }
  };
  struct Visible {  // tokens
    uint32_t begin, end;
  };
  struct Piece {  // a span of a tile, and where the states of its queries are
    uint32_t tile;
    uint32_t span;
    size_t states;
  };
  struct Scratch {
    std::vector<float> kernel;   // AttentionTask::scratch
    std::vector<float> queries;  // of the tiles of a block, [head_dim][query_count] each
    std::vector<float> states;   // of their queries
    std::vector<float> parts;    // of one tile's queries, for one span
  };

  uint64_t cut(const StepView& step, const AttentionOp& op);  // fills tiles_; scores to compute
  bool split(const Inputs& inputs);                           // fills pieces_, if that is to be done
  void cut_blocks(const Inputs& inputs);                      // fills first_tiles_
  void attend_block(const Inputs& inputs, uint32_t first, uint32_t end, Scratch& scratch) const;
  void attend_pieces(const Inputs& inputs);
  void fold_pieces(const Inputs& inputs, uint32_t first_piece);

  static Visible visible(const Inputs& inputs, const Tile& tile, uint32_t query);
  static Visible spans(const Inputs& inputs, const Tile& tile);
  static size_t offset_of(const Inputs& inputs, const Tile& tile, uint32_t query);  // in queries and output
  static void gather_queries(const Inputs& inputs, const Tile& tile, float* to);
  AttentionTask task_of(const Inputs& inputs, const Tile& tile, uint32_t span) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  std::vector<Tile> tiles_;
  std::vector<Piece> pieces_;
  std::vector<uint32_t> first_pieces_;  // of each tile, and the end
  std::vector<uint32_t> first_tiles_;   // of each block, and the end
  std::vector<float> piece_states_;
  std::vector<Scratch> scratch_;  // by thread
};

}  // namespace shoal::engine::cpu
