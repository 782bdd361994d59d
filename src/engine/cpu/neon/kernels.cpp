// For every AArch64 processor. Empty on others.
#if defined(__aarch64__)
#include "engine/cpu/neon/dots_base.h"
#include "engine/cpu/sixteen_lanes/table.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {

const Kernels& neon_kernels() {
  return kTable;
}

}  // namespace shoal::engine::cpu
#endif
