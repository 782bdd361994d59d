// CpuBackend: mixtures of experts.
#include "base/assert.h"
#include "engine/cpu/cpu_backend_state.h"

namespace shoal::engine {

CpuTensor CpuBackend::gate_rows(Tensor, Tensor) {
  SHOAL_ASSERT(false);  // not there yet
  return {};
}

CpuRouting CpuBackend::route(Tensor, const Weight*, const RouterOp&) {
  SHOAL_ASSERT(false);  // not there yet
  return {};
}

CpuTensor CpuBackend::experts(Tensor, const Routing&, const ExpertWeights<Weight>&, const Activation&) {
  SHOAL_ASSERT(false);  // not there yet
  return {};
}

}  // namespace shoal::engine
