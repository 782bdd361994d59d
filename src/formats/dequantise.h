// The meaning of quantised blocks: the exact float of each weight, as ggml defines it. This is the reference
// that kernels, tests and loaders of vectors use; it is not the fast path.
#pragma once

#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/tensor_type.h"

namespace shoal::formats {

// One row, or several adjacent ones. `malformed` unless `row` is exactly the bytes of `values.size()`
// weights; `invalid_argument` for types whose scales are tensors of their own.
Result<> dequantise(TensorType type, ByteView row, std::span<float> values);

}  // namespace shoal::formats
