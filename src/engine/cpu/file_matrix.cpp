#include "engine/cpu/file_matrix.h"

#include <atomic>
#include <cmath>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "engine/cpu/thread_pool.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorInfo;
using formats::TensorType;

// Whether the runs lie in a dimension of `whole` and choose no more than it has, though they may overlap.
bool choose_from(const Runs& runs, uint64_t whole) {
  return runs.lie_in(whole) && uint64_t{runs.length} * runs.count <= whole;
}

// The values of one run, one after the other in the file.
bool is_one_run(const Runs& runs) {
  return runs.length == 0 || runs.count == 1 || runs.stride == runs.length;
}

// Part `index` of a tensor's outermost dimension of `count`.
ByteView part_of(ByteView bytes, uint32_t index, uint64_t count) {
  size_t size = bytes.size() / count;
  return bytes.subspan(index * size, size);
}

}  // namespace

Result<FileMatrix> FileMatrix::of(const formats::Checkpoint& checkpoint, const MatrixSource& source) {
  const TensorInfo& info = *source.tensor;
  const size_t dimensions = info.shape.size();
  const uint64_t count = dimensions == 3 ? info.shape[0] : 1;
  if (dimensions < 2 || dimensions > 3 || source.index >= count || info.type == TensorType::e8m0) {
    return fail(ErrorCode::unsupported, fmt::format("tensor {} is not a matrix, or not a stack of {} of them",
                                                    info.name, uint64_t{source.index} + 1));
  }
  const uint64_t rows = info.shape[dimensions - 2], columns = info.shape[dimensions - 1];
  if (rows == 0 || columns == 0 || rows > limits::kMaxVocabulary || columns > limits::kMaxWidth) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} is not a matrix of a size that shoal runs", info.name));
  }
  if (!choose_from(source.rows, rows) || !choose_from(source.columns, columns)) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} of {} rows and {} columns lacks some that the model wants", info.name,
                            rows, columns));
  }
  FileMatrix matrix;
  matrix.type = info.type;
  matrix.file_rows = static_cast<uint32_t>(rows);
  matrix.file_columns = static_cast<uint32_t>(columns);
  matrix.tensor = &info;
  matrix.tensor_bytes = formats::tensor_bytes(checkpoint, info);
  matrix.first_tensor_row = source.index * rows;
  matrix.weights = part_of(matrix.tensor_bytes.weights, source.index, count);
  matrix.group_rows = info.group_rows;
  matrix.group_columns = info.group_columns;
  if (info.scales) {
    matrix.scale_type = info.scales->type;
    matrix.scales = part_of(matrix.tensor_bytes.scales, source.index, count);
  }
  if (info.biases) matrix.biases = part_of(matrix.tensor_bytes.biases, source.index, count);
  matrix.chosen_rows = source.rows;
  matrix.chosen_columns = source.columns;
  matrix.transposed = source.transposed;
  matrix.exact = source.exact;
  return matrix;
}

size_t FileMatrix::row_bytes() const {
  const formats::TensorTypeInfo& info = formats::type_info(type);
  return size_t{file_columns} / info.block_values * info.block_bytes;
}

size_t FileMatrix::scale_row_bytes() const {
  if (scales.empty()) return 0;
  return (size_t{file_columns} + group_columns - 1) / group_columns *
         formats::type_info(scale_type).block_bytes;
}

size_t FileMatrix::scale_offset(uint32_t row, uint32_t column) const {
  if (scales.empty()) return 0;
  return row / group_rows * scale_row_bytes() +
         column / group_columns * formats::type_info(scale_type).block_bytes;
}

bool FileMatrix::keeps_type(const MatrixShare& share) const {
  if (type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16) return true;
  uint32_t unit = formats::type_info(type).block_values;
  if (exact || transposed || !is_one_run(chosen_columns)) return false;
  if (!scales.empty()) unit = group_columns;
  uint32_t first = chosen_columns.first + share.first_column, end = first + share.columns;
  return first % unit == 0 && (end % unit == 0 || end == file_columns);
}

Result<FileMatrix> FileMatrix::widened(const MatrixShare& share, ThreadPool& pool,
                                       std::vector<float>& memory) const {
  memory.resize(size_t{share.rows} * share.columns);
  const uint32_t first_row = transposed ? share.first_column : share.first_row;
  const uint32_t first_column = transposed ? share.first_row : share.first_column;
  const uint32_t row_count = transposed ? share.columns : share.rows;
  const uint32_t column_count = transposed ? share.rows : share.columns;
  std::atomic<bool> good = true;
  pool.run(row_count, [&](uint32_t row, unsigned) {
    std::vector<float> values(file_columns);
    read_row(*this, chosen_rows.at(first_row + row), values);
    for (uint32_t column = 0; column < column_count; ++column) {
      const float value = values[chosen_columns.at(first_column + column)];
      if (!std::isfinite(value)) good = false;
      memory[size_t{row} * column_count + column] = value;
    }
  });
  if (!good) return fail(ErrorCode::malformed, "a weight is not a number");
  return FileMatrix{.type = TensorType::f32,
                    .file_rows = row_count,
                    .file_columns = column_count,
                    .weights = std::as_bytes(std::span(memory)),
                    .transposed = transposed};
}

void read_row(const FileMatrix& matrix, uint32_t row, std::span<float> values) {
  SHOAL_ASSERT(matrix.tensor && values.size() == matrix.file_columns);
  auto read =
      formats::dequantise_rows(*matrix.tensor, matrix.tensor_bytes, matrix.first_tensor_row + row, values);
  SHOAL_ASSERT(read.has_value());
}

}  // namespace shoal::engine::cpu
