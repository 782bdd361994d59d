// Empty on other processors.
#if defined(__x86_64__)
#include "engine/cpu/avx2/dots_avx2.h"
#include "engine/cpu/sixteen_lanes/table.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {

const Kernels& avx2_kernels() {
  return kTable;
}

}  // namespace shoal::engine::cpu
#endif
