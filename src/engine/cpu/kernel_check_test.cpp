#include "engine/cpu/kernel_check.h"

#include <gtest/gtest.h>

#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

TEST(KernelCheck, EveryTablePasses) {
  EXPECT_TRUE(gives_portable_bits(reference_kernels()));
  for (const Kernels* kernels : product_kernels()) EXPECT_TRUE(gives_portable_bits(*kernels));
}

void add_an_ulp(const MatrixTask& task) {
  const Kernels& kernels = reference_kernels();
  kernels.multiply[static_cast<size_t>(PanelType::q6_k)](task);
  float& last = task.output[(task.row_count - 1) * task.output_stride + task.output_rows - 1];
  last = std::nextafter(last, 1e30f);
}

TEST(KernelCheck, FindsOneBitInOneOutput) {
  Kernels wrong = reference_kernels();
  wrong.multiply[static_cast<size_t>(PanelType::q6_k)] = add_an_ulp;
  EXPECT_FALSE(gives_portable_bits(wrong));
}

}  // namespace
}  // namespace shoal::engine::cpu
