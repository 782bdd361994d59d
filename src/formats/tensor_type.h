// The element types that model files use, with their block geometry. Names are ggml's.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace shoal::formats {

enum class TensorType : uint8_t { f32, f16, bf16, q8_0, q4_0, q4_k, q6_k };
inline constexpr uint32_t kTensorTypeCount = 7;

struct TensorTypeInfo {
  std::string_view name;   // "Q4_K"
  uint32_t block_values;   // weights in a block along a row
  uint32_t block_bytes;    // bytes of a block in the file
};

const TensorTypeInfo& type_info(TensorType type);
inline std::string_view to_string(TensorType type) { return type_info(type).name; }

// Bytes of `rows` rows of `columns` values; an Error when a row is not whole blocks or the product overflows.
Result<uint64_t> tensor_bytes(TensorType type, uint64_t rows, uint64_t columns);

}  // namespace shoal::formats
