// Cuts the latent attention of a step into tiles of query vectors of one sequence, whatever rows and heads
// they are of. As in attention_plan.h, neighbouring tiles make a block that goes through the cache span by
// span, and when there are too few tiles for the threads (decode) each span of a tile is a task; the bits are
// the same.
#pragma once

#include <vector>

#include "engine/backend.h"
#include "engine/cpu/kv_cache.h"
#include "engine/cpu/thread_pool.h"
#include "engine/step.h"

namespace shoal::engine::cpu {

class LatentPlan {
 public:
  LatentPlan(const Kernels& kernels, ThreadPool& pool);

  // queries [rows, query_heads * latent_rank], rotated [rows, query_heads * rope_dim] -> output [rows,
  // query_heads * latent_rank]; the step's latent rows are in the cache already.
  void run(const KvCache& cache, const StepView& step, const LatentAttentionOp& op, const float* queries,
           const float* rotated, float* output);

 private:
  struct Inputs {
    const LatentAttentionOp& op;
    const float* queries;
    const float* rotated;
    float* output;
    Kernels::AttendLatent attend;
    LatentStateLayout state;
  };
  struct Tile {
    LatentTask task;     // without a span, queries and state
    uint32_t sequence;   // of the step
    size_t first_query;  // in queries, rotated and output, in query vectors
    uint32_t span_count;
    uint32_t first_piece;  // if it is split
  };
  struct Piece {  // a span of a tile
    uint32_t tile;
    uint32_t span;
  };
  struct Scratch {
    std::vector<float> queries;  // of the tiles of a block, [values][16] each
    std::vector<float> states;   // of these tiles
    std::vector<float> part;     // one state
  };

  uint64_t cut(const KvCache& cache, const StepView& step, const Inputs& inputs);  // multiply-adds to do
  bool split(const Inputs& inputs);  // fills pieces_, if that is to be done
  void cut_blocks();                 // fills first_tiles_
  void attend_block(const Inputs& inputs, uint32_t first, uint32_t end, Scratch& scratch) const;
  void attend_pieces(const Inputs& inputs);
  void finish(const Inputs& inputs, const Tile& tile, const float* state) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  std::vector<Tile> tiles_;
  std::vector<Piece> pieces_;
  std::vector<uint32_t> first_tiles_;  // of each block, and the end
  std::vector<float> piece_states_;
  std::vector<Scratch> scratch_;  // by thread
};

}  // namespace shoal::engine::cpu
