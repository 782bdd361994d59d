#include "engine/cpu/kernel_check.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/cpu/panel_layout.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kColumns = 256;
constexpr uint32_t kRows = 19;  // a tile and a part of one, whatever the tile

struct CheckedType {
  PanelType type;
  size_t block_bytes;   // from scales to scales
  size_t masked_bytes;  // of a block, the first: f16 scales; sub-scales and minima of six bits
};
constexpr CheckedType kChecked[] = {{PanelType::q8_0, 64 + 2 * 512, 64},
                                    {PanelType::q4_0, 64 + 2 * 256, 64},
                                    {PanelType::q4_k, 2368, 320},
                                    {PanelType::q6_k, 3392, 64}};

class Mixer {
 public:
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }

 private:
  uint64_t state_ = 1;
};

// One panel of any codes; 0x3b leaves f16 below 1.
std::vector<uint8_t> panel_of(const CheckedType& checked) {
  std::vector<uint8_t> panel(panel_bytes_of(checked.type, kColumns, 0));
  Mixer mixer;
  for (size_t i = 0; i < panel.size(); ++i) {
    panel[i] = static_cast<uint8_t>(mixer.next());
    if (i % checked.block_bytes < checked.masked_bytes) panel[i] &= 0x3b;
  }
  return panel;
}

std::vector<float> product(const Kernels& kernels, const CheckedType& checked,
                           const std::vector<uint8_t>& panel, const std::vector<float>& input) {
  const ActivationFormat format = activation_format_of(checked.type);
  const size_t row_bytes = prepared_row_bytes(format, kColumns);
  std::vector<uint8_t> prepared(kRows * row_bytes);
  for (uint32_t row = 0; row < kRows; row += kernels.tile_rows) {
    const uint32_t count = std::min(kernels.tile_rows, kRows - row);
    const float* rows[kMaxTileRows] = {};
    for (uint32_t r = 0; r < count; ++r) rows[r] = input.data() + size_t{row + r} * kColumns;
    kernels.prepare[static_cast<size_t>(format)](rows, count, kColumns, prepared.data() + row * row_bytes);
  }
  std::vector<float> output(size_t{kRows} * kPanelRows);
  kernels.multiply[static_cast<size_t>(checked.type)]({.panels = panel.data(),
                                                       .panel_bytes = panel.size(),
                                                       .first_panel = 0,
                                                       .end_panel = 1,
                                                       .output_rows = kPanelRows,
                                                       .columns = kColumns,
                                                       .group_columns = 0,
                                                       .activations = prepared.data(),
                                                       .row_count = kRows,
                                                       .output = output.data(),
                                                       .output_stride = kPanelRows});
  return output;
}

}  // namespace

bool gives_portable_bits(const Kernels& kernels) {
  Mixer mixer;
  std::vector<float> input(size_t{kRows} * kColumns);
  for (float& value : input) value = static_cast<float>(mixer.next() % 2001) * 0.01f - 10.0f;
  return std::ranges::all_of(kChecked, [&](const CheckedType& checked) {
    const std::vector<uint8_t> panel = panel_of(checked);
    const std::vector<float> expected = product(portable_kernels(), checked, panel, input);
    const std::vector<float> seen = product(kernels, checked, panel, input);
    return std::memcmp(expected.data(), seen.data(), expected.size() * sizeof(float)) == 0;
  });
}

}  // namespace shoal::engine::cpu
