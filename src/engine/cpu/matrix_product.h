// Rows times packed matrices on the thread pool: activations are prepared once per format, then all matrices'
// panels are one loop, so that Q, K and V (or gate and up) cost one wake-up.
#pragma once

#include <span>
#include <vector>

#include "engine/cpu/arena.h"
#include "engine/cpu/kernel_table.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/thread_pool.h"

namespace shoal::engine::cpu {

struct ProductOutput {
  const PackedMatrix* matrix;
  float* output;  // [row_count, matrix->rows()]
};

class MatrixProduct {
 public:
  MatrixProduct(const Kernels& kernels, ThreadPool& pool, Arena& arena)
      : kernels_(kernels), pool_(pool), arena_(arena) {}

  // outputs[i].output = input @ matrix_iᵀ for input [row_count, columns]; every matrix has `columns` columns.
  void run(const float* input, uint32_t row_count, uint32_t columns, std::span<const ProductOutput> outputs);

 private:
  struct Chunk {  // panels of one matrix that one task computes, for all rows
    uint32_t output;
    uint32_t first_panel;
    uint32_t end_panel;
  };
  // The prepared rows; `memory` keeps them where they are not `input` itself.
  const uint8_t* prepare(ActivationFormat format, const float* input, uint32_t row_count, uint32_t columns,
                         ArenaBlock& memory);
  // Fills chunks_; false when the work is not worth waking a thread.
  bool split(uint32_t row_count, std::span<const ProductOutput> outputs);
  void multiply(const Chunk& chunk, const ProductOutput& output, const uint8_t* activations,
                uint32_t row_count) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  Arena& arena_;
  std::vector<Chunk> chunks_;
};

}  // namespace shoal::engine::cpu
