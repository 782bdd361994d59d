#include "engine/cpu/portable/lanes.h"
#include "engine/cpu/sixteen_lanes/table.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {

const Kernels& portable_kernels() {
  return kTable;
}

}  // namespace shoal::engine::cpu
