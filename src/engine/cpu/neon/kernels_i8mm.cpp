// For AArch64 processors with FEAT_I8MM, such as Apple's since the M2 and Arm's since 2020. Empty on others.
#if defined(__aarch64__)
#include "engine/cpu/neon/dots_i8mm.h"
#include "engine/cpu/neon/pairs_of_rows.h"

namespace shoal::engine::cpu {
namespace {

template <>
struct DotLoop<I32x16> {
  template <class Codes, int first, int end, int panels, int rows>
  [[gnu::always_inline]] static void add(const Places<panels>& codes, uint32_t group, const uint8_t* tile,
                                         I32x16 (&dots)[panels][rows]) {
    if constexpr (rows == 1) {
      add_dots_by_lane<Codes, first, end, panels, rows>(codes, group, tile, dots);
    } else {
      add_dots_in_pairs<Codes, first, end, panels, rows>(codes, group, tile, dots);
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu

#include "engine/cpu/sixteen_lanes/table.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {

const Kernels& neon_i8mm_kernels() {
  return kTable;
}

}  // namespace shoal::engine::cpu
#endif
