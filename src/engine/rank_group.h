// What an engine asks of the other ranks of its tensor-parallel stage: the border between the ops that cut a
// matrix over ranks and whoever carries values between them (a worker over Links; a pipeline of one process
// over memory).
//
// All ranks make the same calls in the same order with the same sizes. A call returns when this rank has its
// result; one thread calls. After an Error (a peer is lost, a frame is not what was expected) the values are
// worth nothing, the step has failed, and every later call fails as well: the group is made anew with the
// instance's next epoch.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace shoal::engine {

class RankGroup {
 public:
  virtual ~RankGroup() = default;

  // Adds up `values` over the ranks, in place: ((v0 + v1) + v2) + …, in the order of ranks whatever the order
  // of arrival, so that all ranks have equal bits and a repeated step has them too.
  virtual Result<> sum(std::span<float> values) = 0;

  // The ranks' values one after the other in rank order. counts[r] values come from rank r; `mine` has this
  // rank's counts[rank], `all` the sum of counts. A count may be 0. `mine` does not lie in `all`.
  virtual Result<> gather(std::span<const float> mine, std::span<float> all,
                          std::span<const uint32_t> counts) = 0;
};

}  // namespace shoal::engine
