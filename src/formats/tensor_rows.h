// The exact floats of a tensor's rows, whatever its type, with scales and biases looked up where they are
// tensors of their own: for embeddings, small tensors and tests. Not the fast path.
#pragma once

#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::formats {

// Where a tensor's bytes are; scales and biases are empty where the TensorInfo has none.
struct TensorBytes {
  ByteView weights;
  ByteView scales;
  ByteView biases;
};
TensorBytes tensor_bytes(const Checkpoint& checkpoint, const TensorInfo& tensor);

// Rows `first_row` onward, as many as `values` holds; rows are counted over all leading dimensions, so that
// row r of expert e is e * rows + r. FP8 gives e4m3 * scale, MXFP4 fp4 * 2^(scale - 127), MLX scale * q +
// bias, in float32. `invalid_argument` unless `values` is whole rows that exist; `malformed` when the bytes
// are not the tensor's.
Result<> dequantise_rows(const TensorInfo& tensor, const TensorBytes& bytes, uint64_t first_row,
                         std::span<float> values);
Result<> dequantise_rows(const Checkpoint& checkpoint, const TensorInfo& tensor, uint64_t first_row,
                         std::span<float> values);

}  // namespace shoal::formats
