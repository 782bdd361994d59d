// One safetensors file (https://github.com/huggingface/safetensors#format): u64 header length, a JSON header,
// the data. Read from bytes nobody vouches for: after parsing, each tensor lies inside the file, has the
// length that its shape and type give, and no two overlap or share a name. Tensors need not be aligned to their
// elements: MLX writes files where they are not.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/tensor_type.h"

namespace shoal::formats {

struct SafetensorsTensor {
  std::string name;
  std::string_view dtype;       // "BF16", "U8", …; one whose size we know; the text is a constant
  std::vector<uint64_t> shape;  // outermost first; empty for a scalar
  uint64_t offset = 0;          // from the start of the file
  uint64_t bytes = 0;
};

// Parses the header of a whole mapped file, in the order of the header. Entries of __metadata__ are checked
// and dropped. Memory stays below the header's own size and a constant per tensor: no JSON tree is built.
Result<std::vector<SafetensorsTensor>> parse_safetensors(ByteView file);

// BF16, F16 and F32, which are weights as they are; any other dtype is `unsupported`.
Result<TensorType> tensor_type_from_dtype(std::string_view dtype);

}  // namespace shoal::formats
