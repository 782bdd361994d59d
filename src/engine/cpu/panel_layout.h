// How much of what a panel of each type holds, for those who fill panels. packed_matrix.h has the layouts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu/kernel_table.h"
#include "formats/tensor_type.h"

namespace shoal::engine::cpu {

// How weights of `type`, with scales of `scale_type` beside them if they have any, are packed.
PanelType panel_type_of(formats::TensorType type, formats::TensorType scale_type);
ActivationFormat activation_format_of(PanelType type);
// Bytes of a panel of so many columns.
size_t panel_bytes_of(PanelType type, size_t columns, uint32_t group_columns);
// Neighbours of a row that share a scale in panels of affine weights and f8; 0 for the others. `group` is
// the file's figure.
uint32_t panel_group_of(formats::TensorType type, uint32_t group, uint32_t columns);
// Columns to pack at once: whole blocks and groups of the panel, few enough to stay in the first-level cache.
uint32_t strip_columns_of(PanelType type, uint32_t group_columns);

// Fills the lanes of rows that are not there, in a panel of zeros, where zeros would be slow to compute with.
void pad_panel(PanelType type, uint8_t* panel, size_t first_lane, size_t columns);

}  // namespace shoal::engine::cpu
