#include "engine/cpu/panel_layout.h"

#include <algorithm>
#include <array>

namespace shoal::engine::cpu {
namespace {

using formats::TensorType;

enum class Shape : uint8_t { values, groups, pairs, quads };  // what a scale stands before

struct PanelInfo {
  ActivationFormat activations;
  Shape shape;
  uint32_t block_values;
  uint32_t block_bytes;  // of 16 rows, without the scales of `groups`, `pairs` and `quads`
  uint32_t scale_bytes;  // of 16 rows, for a group, a pair of blocks or four blocks
};

constexpr auto kFloats = ActivationFormat::f32;
constexpr auto kBytes32 = ActivationFormat::q8_32;
constexpr auto kBytes256 = ActivationFormat::q8_256;

constexpr std::array<PanelInfo, kPanelTypeCount> kPanels = {{
    {kFloats, Shape::values, 1, 64, 0},        // f32
    {kFloats, Shape::values, 1, 32, 0},        // f16
    {kFloats, Shape::values, 1, 32, 0},        // bf16
    {kFloats, Shape::groups, 1, 16, 64},       // f8
    {kFloats, Shape::quads, 32, 256, 64},      // mxfp4
    {kBytes32, Shape::pairs, 32, 512, 64},     // q8_0
    {kBytes32, Shape::pairs, 32, 256, 64},     // q4_0
    {kBytes32, Shape::pairs, 32, 320, 64},     // q5_0
    {kBytes32, Shape::pairs, 32, 256, 64},     // iq4_nl
    {kBytes32, Shape::groups, 32, 256, 64},    // affine4_f16
    {kBytes32, Shape::groups, 32, 256, 64},    // affine4_bf16
    {kBytes32, Shape::groups, 32, 256, 128},   // affine4_f32
    {kBytes32, Shape::groups, 32, 320, 64},    // affine5_f16
    {kBytes32, Shape::groups, 32, 512, 64},    // affine8_f16
    {kBytes32, Shape::groups, 32, 512, 64},    // affine8_bf16
    {kBytes32, Shape::groups, 32, 512, 128},   // affine8_f32
    {kBytes256, Shape::values, 256, 1344, 0},  // q2_k
    {kBytes256, Shape::values, 256, 1792, 0},  // q3_k
    {kBytes256, Shape::values, 256, 2368, 0},  // q4_k
    {kBytes256, Shape::values, 256, 2880, 0},  // q5_k
    {kBytes256, Shape::values, 256, 3392, 0},  // q6_k
    {kBytes256, Shape::values, 256, 2240, 0},  // iq4_xs
}};

const PanelInfo& info_of(PanelType type) {
  return kPanels[static_cast<size_t>(type)];
}

constexpr std::array<PanelType, formats::kTensorTypeCount> kPanelTypes = {
    PanelType::f32,   PanelType::f16,  PanelType::bf16,        PanelType::q8_0,        PanelType::q4_0,
    PanelType::q4_k,  PanelType::q6_k, PanelType::affine4_f16, PanelType::q5_0,        PanelType::affine5_f16,
    PanelType::q2_k,  PanelType::q3_k, PanelType::q5_k,        PanelType::iq4_nl,      PanelType::iq4_xs,
    PanelType::mxfp4, PanelType::f8,   PanelType::mxfp4,       PanelType::affine4_f16, PanelType::affine8_f16,
    PanelType::f32};

size_t divide_up(size_t value, size_t by) {
  return (value + by - 1) / by;
}

}  // namespace

PanelType panel_type_of(TensorType type, TensorType scale_type) {
  const bool bf16 = scale_type == TensorType::bf16, f32 = scale_type == TensorType::f32;
  if (type == TensorType::affine4) {
    return f32 ? PanelType::affine4_f32 : bf16 ? PanelType::affine4_bf16 : PanelType::affine4_f16;
  }
  if (type == TensorType::affine8) {
    return f32 ? PanelType::affine8_f32 : bf16 ? PanelType::affine8_bf16 : PanelType::affine8_f16;
  }
  return kPanelTypes[static_cast<size_t>(type)];
}

ActivationFormat activation_format_of(PanelType type) {
  return info_of(type).activations;
}

uint32_t panel_group_of(TensorType type, uint32_t group, uint32_t columns) {
  switch (type) {
    case TensorType::q4_1:
    case TensorType::q5_1:
      return 32;
    case TensorType::f8_e4m3:
      return group == 0 ? columns : std::min(group, columns);
    case TensorType::affine4:
    case TensorType::affine8:
      return group;
    default:
      return 0;
  }
}

size_t panel_bytes_of(PanelType type, size_t columns, uint32_t group_columns) {
  const PanelInfo& info = info_of(type);
  const size_t blocks = columns / info.block_values, bytes = blocks * info.block_bytes;
  switch (info.shape) {
    case Shape::values:
      return bytes;
    case Shape::groups:
      return bytes + divide_up(columns, group_columns) * info.scale_bytes;
    case Shape::pairs:
      return bytes + divide_up(blocks, 2) * info.scale_bytes;
    case Shape::quads:
      return bytes + divide_up(blocks, 4) * info.scale_bytes;
  }
  return 0;
}

uint32_t strip_columns_of(PanelType type, uint32_t group_columns) {
  constexpr uint32_t kStripColumns = 256;
  if (info_of(type).shape != Shape::groups) return kStripColumns;
  return std::max(1u, kStripColumns / group_columns) * group_columns;
}

void pad_panel(PanelType type, uint8_t* panel, size_t first_lane, size_t columns) {
  if (type != PanelType::mxfp4) return;
  for (size_t block = 0; block < columns / 32; ++block) {
    uint8_t* scales = panel + block / 4 * (64 + 4 * 256) + block % 4 * kPanelRows;
    std::fill(scales + first_lane, scales + kPanelRows, uint8_t{127});  // 0 would be a subnormal scale
  }
}

}  // namespace shoal::engine::cpu
