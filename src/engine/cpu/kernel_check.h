// Whether a table computes here what the portable one does. Its instruction set may be one that no machine
// has run these kernels on, or one that an emulator gets wrong; a node whose bits differ would choose other
// tokens.
#pragma once

#include "engine/cpu/kernel_table.h"

namespace shoal::engine::cpu {

// Compares products of a few small matrices of the types that most models have. Takes less than a
// millisecond.
bool gives_portable_bits(const Kernels& kernels);

}  // namespace shoal::engine::cpu
