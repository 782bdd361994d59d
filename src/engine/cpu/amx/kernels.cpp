// Empty on other processors.
#if defined(__x86_64__)
#include "engine/cpu/amx/hardware_tiles.h"
#include "engine/cpu/amx/table.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {

const Kernels& amx_kernels() {
  return kAmxTable;
}

}  // namespace shoal::engine::cpu
#endif
