// ggml's numbers of tensor types.
#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "formats/gguf.h"

namespace shoal::formats {
namespace {

struct UsableType {
  uint32_t number;
  TensorType type;
};
constexpr std::array kUsableTypes = std::to_array<UsableType>({{0, TensorType::f32},
                                                               {1, TensorType::f16},
                                                               {2, TensorType::q4_0},
                                                               {3, TensorType::q4_1},
                                                               {6, TensorType::q5_0},
                                                               {7, TensorType::q5_1},
                                                               {8, TensorType::q8_0},
                                                               {10, TensorType::q2_k},
                                                               {11, TensorType::q3_k},
                                                               {12, TensorType::q4_k},
                                                               {13, TensorType::q5_k},
                                                               {14, TensorType::q6_k},
                                                               {20, TensorType::iq4_nl},
                                                               {23, TensorType::iq4_xs},
                                                               {30, TensorType::bf16},
                                                               {39, TensorType::mxfp4}});

// Those that shoal knows but cannot use, for a clear refusal.
struct OtherType {
  uint32_t number;
  std::string_view name;
};
constexpr std::array kOtherTypes = std::to_array<OtherType>(
    {{4, "Q4_2"},    {5, "Q4_3"},        {9, "Q8_1"},        {15, "Q8_K"},       {16, "IQ2_XXS"},
     {17, "IQ2_XS"}, {18, "IQ3_XXS"},    {19, "IQ1_S"},      {21, "IQ3_S"},      {22, "IQ2_S"},
     {24, "I8"},     {25, "I16"},        {26, "I32"},        {27, "I64"},        {28, "F64"},
     {29, "IQ1_M"},  {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"},   {34, "TQ1_0"},
     {35, "TQ2_0"},  {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {40, "NVFP4"}});

}  // namespace

Result<TensorType> tensor_type_from_ggml(uint32_t number) {
  const auto* usable = std::ranges::find(kUsableTypes, number, &UsableType::number);
  if (usable != kUsableTypes.end()) return usable->type;
  const auto* other = std::ranges::find(kOtherTypes, number, &OtherType::number);
  if (other == kOtherTypes.end())
    return fail(ErrorCode::malformed, fmt::format("unknown tensor type {}", number));
  return fail(ErrorCode::unsupported, fmt::format("tensor type {} is not supported", other->name),
              "use a file in Q4_K_M, Q5_K_M, Q6_K, Q8_0, IQ4_XS, MXFP4, F16 or BF16");
}

}  // namespace shoal::formats
