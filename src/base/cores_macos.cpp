#ifdef __APPLE__
#include <numeric>

#include "base/cores.h"
#include "base/system.h"

namespace shoal {

std::vector<unsigned> usable_cores() {
  std::vector<unsigned> cores(usable_core_count());
  std::iota(cores.begin(), cores.end(), 0U);
  return cores;
}

bool stay_on_core(unsigned) {
  return false;
}

std::vector<unsigned> memory_nodes() {
  return {0};
}

}  // namespace shoal
#endif
