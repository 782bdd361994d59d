// From rows of a file to panels of 16 rows, one packer for each type of a file. What a panel looks like is
// in packed_matrix.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu/kernel_table.h"
#include "formats/tensor_type.h"

namespace shoal::engine::cpu {

// A part of one row in the file's form: whole blocks and groups.
struct RowStrip {
  const uint8_t* weights;
  const uint8_t* scales;  // of types whose scales are tensors of their own; null: 1
  const uint8_t* biases;
  formats::TensorType scale_type;
  uint32_t columns;
  uint32_t group_columns;  // neighbours that share a scale
};

// Writes lane `lane` of the part of a panel that starts at `panel`. False: a scale or weight is NaN where the
// type has none to compute with.
bool pack_strip(formats::TensorType type, uint8_t* panel, size_t lane, const RowStrip& strip);

}  // namespace shoal::engine::cpu
