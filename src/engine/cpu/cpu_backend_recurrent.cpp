// CpuBackend: the gated delta rule and the states it keeps.
#include "base/assert.h"
#include "engine/cpu/cpu_backend_state.h"

namespace shoal::engine {

CpuTensor CpuBackend::delta_net(Tensor, Tensor, Tensor, Tensor, Tensor, const Weight&, const Weight&,
                                const Weight&, const StepView&, const DeltaNetOp&) {
  SHOAL_ASSERT(false);  // not there yet
  return {};
}

}  // namespace shoal::engine
