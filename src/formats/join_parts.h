// From the tensors that safetensors files store to the weights of a model: quantised weights are stored as
// several tensors (packed integers, scales, biases), which become one TensorInfo with its `scales` and
// `biases`.
#pragma once

#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "formats/quantisation.h"
#include "formats/safetensors.h"

namespace shoal::formats {

struct StoredTensor {
  SafetensorsTensor tensor;
  uint32_t file;  // index into Checkpoint::files()
};

// Joins the parts of quantised weights, then passes floats through, both in the order of `stored`. After it,
// shapes, types and groups of each TensorInfo agree as TensorInfo promises. `malformed` for a part without
// its partners, partners that do not fit together, or a name that appears twice; `unsupported` for dtypes,
// bits and modes that shoal cannot use.
Result<std::vector<TensorInfo>> join_parts(std::vector<StoredTensor> stored,
                                           const Quantisation& quantisation);

}  // namespace shoal::formats
