// Rows times packed matrices on the thread pool: activations are prepared once per format, then the panels of
// all matrices are one loop, so that Q, K and V (or gate and up, or the experts of a layer) cost one wake-up.
// A row's result depends on the row and the matrix alone, never on what else is computed with it.
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

// output row t = matrix @ input row t. Input row t is the matrix->columns() floats at
// input + t * input_stride, or at input + input_rows[t] * input_stride.
struct ProductJob {
  const PackedMatrix* matrix;
  const float* input;
  size_t input_stride;                   // floats from row to row
  const uint32_t* input_rows = nullptr;  // [row_count]
  uint32_t row_count;
  float* output;
  size_t output_stride;
};

class MatrixProduct {
 public:
  MatrixProduct(const Kernels& kernels, ThreadPool& pool, Arena& arena)
      : kernels_(kernels), pool_(pool), arena_(arena) {}

  // outputs[i].output = input @ matrix_iᵀ for input [row_count, columns]; every matrix has `columns` columns.
  void run(const float* input, uint32_t row_count, uint32_t columns, std::span<const ProductOutput> outputs);

  // All jobs, in any order: none reads what another writes. Jobs that follow each other with the same input,
  // input_rows and row_count share their prepared rows.
  void run_jobs(std::span<const ProductJob> jobs);

 private:
  struct Prepared {  // the input of some jobs, in one activation format
    const ProductJob* job;
    ActivationFormat format;
    size_t offset;        // in the block of prepared rows
    const uint8_t* rows;  // the tiles
    uint32_t first_tile;  // among the tiles of all
  };
  struct Chunk {  // panels of one job's matrix that one task computes, for all rows
    uint32_t job;
    uint32_t first_panel;
    uint32_t end_panel;
  };

  // Fills prepared_, prepared_of_ and the block of prepared rows.
  void prepare_inputs(std::span<const ProductJob> jobs);
  uint32_t find_prepared(const ProductJob& job, ActivationFormat format) const;
  void prepare_tile(const Prepared& prepared, uint32_t tile, uint8_t* block) const;
  // Fills chunks_; false when the work is not worth waking a thread.
  bool split(std::span<const ProductJob> jobs);
  void multiply(const Chunk& chunk, const ProductJob& job, const uint8_t* activations) const;
  uint32_t tile_count(uint32_t row_count) const {
    return (row_count + kernels_.tile_rows - 1) / kernels_.tile_rows;
  }

  const Kernels& kernels_;
  ThreadPool& pool_;
  Arena& arena_;
  ArenaBlock block_;
  std::vector<Prepared> prepared_;
  std::vector<uint32_t> prepared_of_;  // per job
  std::vector<uint32_t> tiles_;        // per tile to prepare: the index of its Prepared
  std::vector<ProductJob> jobs_;       // of run()
  std::vector<Chunk> chunks_;
};

}  // namespace shoal::engine::cpu
