#include "engine/cpu/sample_matrix.h"

#include <cstring>
#include <vector>

namespace shoal::engine::cpu {

void fill_with_finite(std::span<std::byte> bytes) {
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const uint64_t value = state & 0x6f6f6f6f6f6f6f6fu;
    std::memcpy(bytes.data() + i, &value, 8);
  }
}

Result<PackedMatrix> sample_matrix(const SampleType& type, uint32_t rows, uint32_t columns,
                                   ThreadPool& pool) {
  std::vector<std::byte> weights(*formats::tensor_bytes(type.type, rows, columns)), scales, biases;
  fill_with_finite(weights);
  if (type.group_columns != 0) {
    scales.resize(size_t{rows} * columns / type.group_columns *
                  formats::type_info(type.scale_type).block_bytes);
    biases.resize(scales.size());
    fill_with_finite(scales);
  }
  FileMatrix file = {.type = type.type,
                     .file_rows = rows,
                     .file_columns = columns,
                     .weights = weights,
                     .scales = scales,
                     .biases = biases,
                     .scale_type = type.scale_type,
                     .group_columns = type.group_columns};
  return PackedMatrix::pack(file, {.rows = rows, .columns = columns}, pool);
}

}  // namespace shoal::engine::cpu
