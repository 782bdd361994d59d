// The kernels of AMX over modelled tiles: they run wherever AVX-512 does. test_support.h has them compared
// with the portable ones beside the processor's own. Empty on other processors.
#if defined(__x86_64__)
#include "engine/cpu/amx/model_tiles.h"
#include "engine/cpu/amx/table.h"

namespace shoal::engine::cpu {

const Kernels& amx_model_kernels();
const Kernels& amx_model_kernels() {
  return kAmxTable;
}

}  // namespace shoal::engine::cpu
#endif
