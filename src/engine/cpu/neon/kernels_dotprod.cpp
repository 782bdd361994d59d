// For AArch64 processors with FEAT_DotProd, which most have since 2018. Empty on others.
#if defined(__aarch64__)
#include "engine/cpu/neon/dots_dotprod.h"
#include "engine/cpu/neon/words_by_lane.h"

namespace shoal::engine::cpu {
namespace {

template <>
struct DotLoop<I32x16> {
  template <class Codes, int first, int end, int panels, int rows>
  [[gnu::always_inline]] static void add(const Places<panels>& codes, uint32_t group, const uint8_t* tile,
                                         I32x16 (&dots)[panels][rows]) {
    add_dots_by_lane<Codes, first, end, panels, rows>(codes, group, tile, dots);
  }
};

}  // namespace
}  // namespace shoal::engine::cpu

#include "engine/cpu/sixteen_lanes/table.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {

const Kernels& neon_dotprod_kernels() {
  return kTable;
}

}  // namespace shoal::engine::cpu
#endif
