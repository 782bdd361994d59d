#include "formats/tensor_type.h"

#include <array>
#include <fmt/format.h>

#include "base/bytes.h"

namespace shoal::formats {
namespace {
constexpr std::array<TensorTypeInfo, kTensorTypeCount> kInfos = {{
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"BF16", 1, 2},
    {"Q8_0", 32, 34},
    {"Q4_0", 32, 18},
    {"Q4_K", 256, 144},
    {"Q6_K", 256, 210},
    {"Q4_1", 32, 20},
    {"Q5_0", 32, 22},
    {"Q5_1", 32, 24},
    {"Q2_K", 256, 84},
    {"Q3_K", 256, 110},
    {"Q5_K", 256, 176},
    {"IQ4_NL", 32, 18},
    {"IQ4_XS", 256, 136},
    {"MXFP4", 32, 17},
    {"FP8", 1, 1},
    {"MXFP4", 32, 16},
    {"MLX 4-bit", 8, 4},
    {"MLX 8-bit", 4, 4},
    {"E8M0", 1, 1},
}};
}  // namespace

const TensorTypeInfo& type_info(TensorType type) {
  return kInfos[static_cast<size_t>(type)];
}

Result<uint64_t> tensor_bytes(TensorType type, uint64_t rows, uint64_t columns) {
  const auto& info = type_info(type);
  if (columns % info.block_values != 0) {
    return fail(ErrorCode::malformed, fmt::format("rows of {} values are not whole {} blocks of {}", columns,
                                                  info.name, info.block_values));
  }
  auto row_bytes = checked_multiply<uint64_t>(columns / info.block_values, info.block_bytes);
  auto bytes = row_bytes ? checked_multiply(rows, *row_bytes) : std::nullopt;
  if (!bytes) {
    return fail(ErrorCode::malformed, fmt::format("{} rows of {} {} values are more bytes than 64 bits count",
                                                  rows, columns, info.name));
  }
  return *bytes;
}

}  // namespace shoal::formats
