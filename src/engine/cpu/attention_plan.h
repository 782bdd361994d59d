// Cuts the attention of a step into tasks of a few query vectors that share a kv head and a sequence.
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
  struct Tile {
    uint32_t sequence;
    uint32_t first_row;  // within the sequence's rows
    uint32_t row_count;
    uint32_t kv_head;
    uint32_t first_head;
    uint32_t head_count;
  };
  uint64_t cut(const StepView& step, const AttentionOp& op);  // fills tiles_; scores to compute

  const Kernels& kernels_;
  ThreadPool& pool_;
  std::vector<Tile> tiles_;
  std::vector<std::vector<float>> scratch_;  // by thread
};

}  // namespace shoal::engine::cpu
