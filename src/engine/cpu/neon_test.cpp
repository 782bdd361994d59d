#include <algorithm>

#include "base/system.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

bool is_there(std::string_view name) {
  return std::ranges::any_of(kernel_variants(),
                             [&](const KernelVariant& variant) { return variant.name == name; });
}

// A table that does not give portable's bits would be left out, see kernel_check.h.
TEST(Neon, EveryTableThatTheProcessorCanRunIsThere) {
#if !defined(__aarch64__)
  GTEST_SKIP() << "not an AArch64 processor";
#endif
  const ArmExtensions has = arm_extensions();
  EXPECT_TRUE(is_there("neon"));
  EXPECT_EQ(is_there("neon with dot products"), has.dot_products);
  EXPECT_EQ(is_there("neon with products of int8 matrices"), has.dot_products && has.int8_matrices);
}

}  // namespace
}  // namespace shoal::engine::cpu
