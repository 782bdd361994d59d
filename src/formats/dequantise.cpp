#include "formats/dequantise.h"

#include <fmt/format.h>

#include "formats/dequantise_blocks.h"
#include "formats/quant_blocks.h"

namespace shoal::formats {
namespace {

using BlockFunction = void (*)(const std::byte* block, float* values);

// nullptr for types whose scales are not in their blocks.
BlockFunction block_function(TensorType type) {
  switch (type) {
    case TensorType::f32:
      return [](const std::byte* block, float* value) { *value = std::bit_cast<float>(load_u32(block)); };
    case TensorType::f16:
      return [](const std::byte* block, float* value) { *value = load_f16(block); };
    case TensorType::bf16:
      return [](const std::byte* block, float* value) { *value = bf16_to_f32(load_u16(block)); };
    case TensorType::e8m0:
      return [](const std::byte* block, float* value) { *value = e8m0_to_f32(load_u8(block)); };
    case TensorType::q8_0:
      return dequantise_q8_0;
    case TensorType::q4_0:
      return dequantise_q4_0;
    case TensorType::q4_1:
      return dequantise_q4_1;
    case TensorType::q5_0:
      return dequantise_q5_0;
    case TensorType::q5_1:
      return dequantise_q5_1;
    case TensorType::q2_k:
      return dequantise_q2_k;
    case TensorType::q3_k:
      return dequantise_q3_k;
    case TensorType::q4_k:
      return dequantise_q4_k;
    case TensorType::q5_k:
      return dequantise_q5_k;
    case TensorType::q6_k:
      return dequantise_q6_k;
    case TensorType::iq4_nl:
      return dequantise_iq4_nl;
    case TensorType::iq4_xs:
      return dequantise_iq4_xs;
    case TensorType::mxfp4:
      return dequantise_mxfp4;
    case TensorType::f8_e4m3:
    case TensorType::mxfp4_pairs:
    case TensorType::affine4:
    case TensorType::affine8:
      return nullptr;
  }
  return nullptr;
}

}  // namespace

Result<> dequantise(TensorType type, ByteView row, std::span<float> values) {
  const BlockFunction dequantise_block = block_function(type);
  if (!dequantise_block) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} weights have their scales in another tensor", to_string(type)));
  }
  SHOAL_TRY(const uint64_t expected, tensor_bytes(type, 1, values.size()));
  if (row.size() != expected) {
    return fail(ErrorCode::malformed, fmt::format("{} values of {} take {} bytes, not {}", values.size(),
                                                  to_string(type), expected, row.size()));
  }
  const auto& info = type_info(type);
  const size_t blocks = values.size() / info.block_values;
  for (size_t i = 0; i < blocks; ++i) {
    dequantise_block(row.data() + i * info.block_bytes, values.data() + i * info.block_values);
  }
  return {};
}

}  // namespace shoal::formats
