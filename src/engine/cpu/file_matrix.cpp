#include "engine/cpu/file_matrix.h"

#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "engine/cpu/thread_pool.h"
#include "formats/dequantise.h"
#include "formats/half.h"
#include "formats/small_floats.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorInfo;
using formats::TensorType;

bool lies_in(const Runs& runs, uint64_t whole) {
  if (runs.length == 0) return runs.first < whole && runs.count == 1;
  return runs.count != 0 && runs.first + uint64_t{runs.count - 1} * runs.stride + runs.length <= whole;
}

// The values of one run, one after the other in the file.
bool is_one_run(const Runs& runs) {
  return runs.length == 0 || runs.count == 1 || runs.stride == runs.length;
}

float read_scale(TensorType type, const std::byte* from) {
  if (type == TensorType::e8m0) return formats::e8m0_to_f32(std::to_integer<uint8_t>(*from));
  if (type == TensorType::f32) {
    float value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return type == TensorType::f16 ? formats::f16_to_f32(bits) : formats::bf16_to_f32(bits);
}

// The bare number that a weight without its scale is.
float read_code(TensorType type, const std::byte* row, uint32_t column) {
  if (type == TensorType::f8_e4m3) return formats::f8_e4m3_to_f32(std::to_integer<uint8_t>(row[column]));
  if (type == TensorType::affine8) return static_cast<float>(std::to_integer<uint8_t>(row[column]));
  uint32_t nibble = std::to_integer<uint32_t>(row[column / 2]) >> column % 2 * 4 & 15;
  return type == TensorType::mxfp4_pairs ? formats::fp4_to_f32(nibble) : static_cast<float>(nibble);
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
  if (!lies_in(source.rows, rows) || !lies_in(source.columns, columns)) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} of {} rows and {} columns lacks some that the model wants", info.name,
                            rows, columns));
  }
  FileMatrix matrix;
  matrix.type = info.type;
  matrix.file_rows = static_cast<uint32_t>(rows);
  matrix.file_columns = static_cast<uint32_t>(columns);
  matrix.weights = part_of(checkpoint.bytes(info), source.index, count);
  matrix.group_rows = info.group_rows;
  matrix.group_columns = info.group_columns;
  if (info.scales) {
    matrix.scale_type = info.scales->type;
    matrix.scales = part_of(checkpoint.bytes(*info.scales), source.index, count);
  }
  if (info.biases) matrix.biases = part_of(checkpoint.bytes(*info.biases), source.index, count);
  matrix.chosen_rows = source.rows;
  matrix.chosen_columns = source.columns;
  matrix.transposed = source.transposed;
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

bool FileMatrix::has_whole_blocks(const MatrixShare& share) const {
  if (type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16) return true;
  uint32_t unit = formats::type_info(type).block_values;
  if (transposed || !is_one_run(chosen_columns)) return false;
  if (!scales.empty()) unit = group_columns;
  uint32_t first = chosen_columns.first + share.first_column, end = first + share.columns;
  return first % unit == 0 && (end % unit == 0 || end == file_columns);
}

FileMatrix FileMatrix::widened(const MatrixShare& share, ThreadPool& pool,
                               std::vector<uint16_t>& memory) const {
  memory.resize(size_t{share.rows} * share.columns);
  const uint32_t first_row = transposed ? share.first_column : share.first_row;
  const uint32_t first_column = transposed ? share.first_row : share.first_column;
  const uint32_t row_count = transposed ? share.columns : share.rows;
  const uint32_t column_count = transposed ? share.rows : share.columns;
  pool.run(row_count, [&](uint32_t row, unsigned) {
    std::vector<float> values(file_columns);
    read_row(*this, chosen_rows.at(first_row + row), values);
    for (uint32_t column = 0; column < column_count; ++column) {
      memory[size_t{row} * column_count + column] =
          formats::f32_to_f16(values[chosen_columns.at(first_column + column)]);
    }
  });
  return {.type = TensorType::f16,
          .file_rows = row_count,
          .file_columns = column_count,
          .weights = std::as_bytes(std::span(memory)),
          .transposed = transposed};
}

void read_row(const FileMatrix& matrix, uint32_t row, std::span<float> values) {
  SHOAL_ASSERT(values.size() == matrix.file_columns);
  ByteView bytes = matrix.weights.subspan(row * matrix.row_bytes(), matrix.row_bytes());
  if (matrix.type < TensorType::f8_e4m3) {
    SHOAL_ASSERT(formats::dequantise(matrix.type, bytes, values).has_value());
    return;
  }
  float scale = 1, bias = 0;
  for (uint32_t column = 0; column < matrix.file_columns; ++column) {
    if (!matrix.scales.empty() && column % matrix.group_columns == 0) {
      size_t offset = matrix.scale_offset(row, column);
      scale = read_scale(matrix.scale_type, matrix.scales.data() + offset);
      if (!matrix.biases.empty()) bias = read_scale(matrix.scale_type, matrix.biases.data() + offset);
    }
    values[column] = read_code(matrix.type, bytes.data(), column) * scale + bias;
  }
}

}  // namespace shoal::engine::cpu
