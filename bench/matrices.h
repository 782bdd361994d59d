// Random matrices of every weight type, packed for the kernels or written to a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "engine/cpu/kernels.h"
#include "engine/cpu/matrix_product.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/thread_pool.h"
#include "formats/tensor_type.h"

namespace shoal::bench {

struct Kind {
  formats::TensorType type;
  const char* label;
  uint32_t ggml_type = UINT32_MAX;  // in GGUF
  formats::TensorType scale_type = formats::TensorType::f32;
  uint32_t group_columns = 0;
};

std::span<const Kind> all_kinds();
const Kind& kind_of(formats::TensorType type);  // gives up when there is none

engine::cpu::PackedMatrix random_matrix(const Kind& kind, uint32_t rows, uint32_t columns,
                                        engine::cpu::ThreadPool& pool);

// A GGUF of `count` matrices of rows x columns.
void write_file(const std::filesystem::path& path, const Kind& kind, uint32_t count, uint32_t rows,
                uint32_t columns);

// Rows times one matrix, again and again, with memory that lives on.
class Multiplication {
 public:
  Multiplication(const engine::cpu::PackedMatrix& matrix, uint32_t row_count, engine::cpu::ThreadPool& pool);
  void run();
  double operations() const;  // of a run; a multiply-add is two
  double bytes() const { return static_cast<double>(matrix_.bytes()); }

 private:
  const engine::cpu::PackedMatrix& matrix_;
  uint32_t row_count_;
  engine::cpu::Arena arena_;
  engine::cpu::MatrixProduct product_;
  std::vector<float> input_, output_;
};

}  // namespace shoal::bench
