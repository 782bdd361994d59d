// A quick measurement of this machine, for the planner's first guess: how fast memory streams and how fast it
// computes. Takes at most about 200 ms. Observed step times are better, once there are some.
#pragma once

#include <cstdint>

namespace shoal::serving {

struct MachineFigures {
  double decode_bytes_per_second = 0;   // weights streamed by all threads together
  double prefill_flops_per_second = 0;  // multiply-adds times two
};

MachineFigures measure_machine(unsigned threads);

}  // namespace shoal::serving
