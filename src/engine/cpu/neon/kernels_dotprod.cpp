// AArch64 processors with FEAT_DotProd (most since 2018). Empty on others.
#if defined(__aarch64__)
#include "engine/cpu/neon/lanes.h"
// Its lanes come first.
#include "engine/cpu/neon/dots_dotprod.h"
#include "engine/cpu/sixteen_lanes/table.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {

const Kernels& neon_dotprod_kernels() {
  return kTable;
}

}  // namespace shoal::engine::cpu
#endif
