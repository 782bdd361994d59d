// Cuts the latent attention of a step into tiles of query vectors of one sequence, whatever rows and heads
// they are of. When there are too few tiles for the threads (decode), a tile's scores are divided by tokens
// and its outputs by columns, which gives the same bits.
#pragma once

#include <vector>

#include "engine/backend.h"
#include "engine/cpu/kv_cache.h"
#include "engine/cpu/thread_pool.h"
#include "engine/step.h"

namespace shoal::engine::cpu {

class LatentPlan {
 public:
  // The largest row of any layer, see latent_scratch(); 0 floats if no layer has one.
  LatentPlan(const Kernels& kernels, ThreadPool& pool, size_t scratch_floats);

  // queries [rows, query_heads * latent_rank], rotated [rows, query_heads * rope_dim] -> output [rows,
  // query_heads * latent_rank]; the step's latent rows are in the cache already.
  void run(const KvCache& cache, const StepView& step, const LatentAttentionOp& op, const float* queries,
           const float* rotated, float* output);

 private:
  struct Inputs {
    const float* queries;
    const float* rotated;
    float* output;
  };
  uint64_t cut(const KvCache& cache, const StepView& step, const LatentAttentionOp& op, const Inputs& inputs);
  void run_split(const Kernels::Latent& latent);

  const Kernels& kernels_;
  ThreadPool& pool_;
  std::vector<LatentTask> tiles_;
  std::vector<std::vector<float>> scratch_;  // by thread
  struct Piece {                             // of a tile: tokens or columns
    uint32_t tile;
    uint32_t begin;
    uint32_t end;
  };
  std::vector<Piece> pieces_;
  struct Split {  // offsets into split_floats_
    size_t scores;
    size_t rescale;
    size_t inverse;
  };
  std::vector<Split> splits_;
  std::vector<float> split_floats_;
};

}  // namespace shoal::engine::cpu
