#include "serving/probe.h"

#include <gtest/gtest.h>

namespace shoal::serving {
namespace {

TEST(Probe, MeasuresSomethingPlausible) {
  const MachineFigures figures = measure_machine(2);
  EXPECT_GT(figures.decode_bytes_per_second, 1e8);
  EXPECT_GT(figures.prefill_flops_per_second, 1e8);
}

}  // namespace
}  // namespace shoal::serving
