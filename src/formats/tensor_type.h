// The element types that model files use, with their block geometry. Names are ggml's where ggml has the type.
//
// In ggml's types a block carries its scales. The types from f8_e4m3 on have them in tensors of their own
// (TensorInfo::scales and biases, checkpoint.h); their blocks here are the bare weights.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace shoal::formats {

enum class TensorType : uint8_t {
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  q4_k,
  q6_k,
  q4_1,
  q5_0,
  q5_1,
  q2_k,
  q3_k,
  q5_k,
  iq4_nl,
  iq4_xs,
  mxfp4,        // blocks of 32: an e8m0 scale, 16 bytes of fp4 (e2m1), value i and i + 16 in a byte
  f8_e4m3,      // one byte a value; one scale for a rectangle of weights (DeepSeek: 128 x 128)
  mxfp4_pairs,  // fp4 with neighbours in a byte (gpt-oss); one e8m0 scale for 32
  affine4,      // MLX: u32 words, lowest bits first; value = scale * q + bias for a group of 32, 64 or 128
  affine8,
  e8m0,         // no weights: scales 2^(byte - 127), 255 is NaN
};
inline constexpr uint32_t kTensorTypeCount = 21;

struct TensorTypeInfo {
  std::string_view name;   // "Q4_K"; not unique
  uint32_t block_values;   // weights in a block along a row
  uint32_t block_bytes;    // bytes of a block in the file
};

const TensorTypeInfo& type_info(TensorType type);
inline std::string_view to_string(TensorType type) { return type_info(type).name; }

// Bytes of `rows` rows of `columns` values; an Error when a row is not whole blocks or the product overflows.
Result<uint64_t> tensor_bytes(TensorType type, uint64_t rows, uint64_t columns);

}  // namespace shoal::formats
