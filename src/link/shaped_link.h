// A Link that behaves like a slower or a mortal one: what we send takes latency + size / bandwidth to reach
// the inner Link, and after so many bytes or so much time it is cut. Wrap both ends to shape both directions.
// For tests, and to show on one machine what a network would do.
#pragma once

#include <cstdint>
#include <memory>

#include "link/link.h"

namespace shoal::link {

struct LinkShape {
  Duration latency{};                     // one way
  double bytes_per_second = 0;            // 0: as fast as the inner Link
  uint64_t cut_after_bytes = UINT64_MAX;  // of payload sent from this end
  Duration cut_after = Duration::max();   // since the Link was wrapped
};

std::unique_ptr<Link> make_shaped_link(std::unique_ptr<Link> inner, const LinkShape& shape,
                                       const LinkOptions& options = {});

}  // namespace shoal::link
