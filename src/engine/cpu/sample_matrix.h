// Matrices of random weights of any type, packed for the kernels: what the benchmarks and the measurement of
// a machine at its node's start multiply. The same every time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/thread_pool.h"
#include "formats/tensor_type.h"

namespace shoal::engine::cpu {

struct SampleType {
  formats::TensorType type;
  formats::TensorType scale_type =
      formats::TensorType::f32;  // of types whose scales are tensors of their own
  uint32_t group_columns = 0;    // that share one of these; 0: no such tensors
};

// Bytes that are finite as a float of any type and no NaN of FP8 or E8M0.
void fill_with_finite(std::span<std::byte> bytes);

// `columns` are whole blocks and groups. Errors: out_of_memory.
Result<PackedMatrix> sample_matrix(const SampleType& type, uint32_t rows, uint32_t columns, ThreadPool& pool);

}  // namespace shoal::engine::cpu
