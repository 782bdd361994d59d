#include "formats/tensor_rows.h"

#include <fmt/format.h>

#include "base/assert.h"
#include "formats/dequantise.h"
#include "formats/quant_blocks.h"

namespace shoal::formats {
namespace {

float load_value(TensorType type, ByteView bytes, uint64_t index) {
  switch (type) {
    case TensorType::f32:
      return std::bit_cast<float>(load_u32(bytes.data() + index * 4));
    case TensorType::f16:
      return load_f16(bytes.data() + index * 2);
    case TensorType::bf16:
      return bf16_to_f32(load_u16(bytes.data() + index * 2));
    case TensorType::e8m0:
      return e8m0_to_f32(load_u8(bytes.data() + index));
    default:
      SHOAL_ASSERT(false);
  }
}

// The bare number that a row's byte stream holds at `column`.
float load_quant(TensorType type, const std::byte* row, uint64_t column) {
  const auto nibble = [&] {
    return static_cast<uint32_t>(load_u8(row + column / 2) >> (column % 2 * 4) & 15);
  };
  switch (type) {
    case TensorType::f8_e4m3:
      return f8_e4m3_to_f32(load_u8(row + column));
    case TensorType::mxfp4_pairs:
      return fp4_to_f32(nibble());
    case TensorType::affine4:
      return static_cast<float>(nibble());
    case TensorType::affine8:
      return static_cast<float>(load_u8(row + column));
    default:
      SHOAL_ASSERT(false);
  }
}

struct RowsAndColumns {
  uint64_t rows;            // over all leading dimensions
  uint64_t rows_of_matrix;  // of the last two dimensions
  uint64_t columns;
};

RowsAndColumns measure(const TensorInfo& tensor) {
  RowsAndColumns result{1, 1, 1};
  if (tensor.shape.empty()) return result;
  result.columns = tensor.shape.back();
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) result.rows *= tensor.shape[i];
  if (tensor.shape.size() >= 2) result.rows_of_matrix = tensor.shape[tensor.shape.size() - 2];
  return result;
}

// A row of a type whose scales are elsewhere. `row` counts over all leading dimensions.
void dequantise_scaled_row(const TensorInfo& tensor, const RowsAndColumns& size, const TensorBytes& bytes,
                           uint64_t row, std::span<float> values) {
  const uint64_t row_bytes = tensor.bytes / size.rows;
  const std::byte* quants = bytes.weights.data() + row * row_bytes;
  const auto round_up = [](uint64_t count, uint64_t group) {
    return count / group + (count % group != 0 ? 1 : 0);
  };
  const uint64_t scale_columns = round_up(size.columns, tensor.group_columns);
  const uint64_t scale_rows = round_up(size.rows_of_matrix, tensor.group_rows);
  const uint64_t scale_row =
      row / size.rows_of_matrix * scale_rows + row % size.rows_of_matrix / tensor.group_rows;
  for (uint64_t column = 0; column < values.size(); ++column) {
    const uint64_t index = scale_row * scale_columns + column / tensor.group_columns;
    const float scale = load_value(tensor.scales->type, bytes.scales, index);
    const float bias = tensor.biases ? load_value(tensor.biases->type, bytes.biases, index) : 0.0f;
    const float scaled = load_quant(tensor.type, quants, column) * scale;
    values[column] = tensor.biases ? scaled + bias : scaled;
  }
}

}  // namespace

TensorBytes tensor_bytes(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  return {checkpoint.bytes(tensor), tensor.scales ? checkpoint.bytes(*tensor.scales) : ByteView(),
          tensor.biases ? checkpoint.bytes(*tensor.biases) : ByteView()};
}

Result<> dequantise_rows(const TensorInfo& tensor, const TensorBytes& bytes, uint64_t first_row,
                         std::span<float> values) {
  const RowsAndColumns size = measure(tensor);
  const uint64_t count = values.size() / size.columns;
  if (values.size() % size.columns != 0 || first_row > size.rows || count > size.rows - first_row) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} values from row {} on are not rows of {}, which has {} rows of {}",
                            values.size(), first_row, tensor.name, size.rows, size.columns));
  }
  if (bytes.weights.size() != tensor.bytes ||
      bytes.scales.size() != (tensor.scales ? tensor.scales->bytes : 0) ||
      bytes.biases.size() != (tensor.biases ? tensor.biases->bytes : 0)) {
    return fail(ErrorCode::malformed,
                fmt::format("{} takes {} bytes, not {}", tensor.name, tensor.stored_bytes(),
                            bytes.weights.size() + bytes.scales.size() + bytes.biases.size()));
  }
  if (!tensor.scales) {
    const uint64_t row_bytes = tensor.bytes / size.rows;
    return dequantise(tensor.type, bytes.weights.subspan(first_row * row_bytes, count * row_bytes), values);
  }
  for (uint64_t i = 0; i < count; ++i) {
    dequantise_scaled_row(tensor, size, bytes, first_row + i, values.subspan(i * size.columns, size.columns));
  }
  return {};
}

Result<> dequantise_rows(const Checkpoint& checkpoint, const TensorInfo& tensor, uint64_t first_row,
                         std::span<float> values) {
  return dequantise_rows(tensor, tensor_bytes(checkpoint, tensor), first_row, values);
}

}  // namespace shoal::formats
