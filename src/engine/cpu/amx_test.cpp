// What only the kernels over tiles have: groups of rows, chunks of columns, and tiles that end early.
#include <gtest/gtest.h>

#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

std::vector<const Kernels*> tile_kernels() {
  std::vector<const Kernels*> found = product_kernels();
  std::erase_if(found, [](const Kernels* kernels) { return kernels->isa != Isa::amx; });
  return found;
}

class AmxTest : public ::testing::TestWithParam<WeightKind> {
 protected:
  void SetUp() override {
    if (tile_kernels().empty()) GTEST_SKIP() << "this machine lacks AVX-512";
  }
};

TEST_P(AmxTest, EveryRowCountGivesPortableBits) {
  Random random(21);
  for (const Kernels* kernels : tile_kernels()) {
    for (uint32_t row_count = 1; row_count <= 34; ++row_count) {
      const uint32_t columns = (1 + row_count % 3) * GetParam().block_columns();
      PackedMatrix matrix = pack(random_matrix(GetParam(), 20, columns, random).matrix());
      std::vector<float> input = awkward_values(size_t{row_count} * columns, random);
      EXPECT_TRUE(same_bits(product(reference_kernels(), matrix, input, row_count),
                            product(*kernels, matrix, input, row_count)))
          << row_count << " rows of " << columns;
    }
  }
}

TEST_P(AmxTest, SeveralGroupsOfRowsAndChunksOfColumnsGivePortableBits) {
  Random random(22);
  const uint32_t columns = 1280 / GetParam().block_columns() * GetParam().block_columns();
  for (const Kernels* kernels : tile_kernels()) {
    for (uint32_t row_count : {129u, 150u, 263u}) {
      PackedMatrix matrix = pack(random_matrix(GetParam(), 37, columns, random).matrix());
      std::vector<float> input = awkward_values(size_t{row_count} * columns, random);
      EXPECT_TRUE(same_bits(product(reference_kernels(), matrix, input, row_count),
                            product(*kernels, matrix, input, row_count)))
          << row_count << " rows";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AmxTest, ::testing::ValuesIn(all_kinds()),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace shoal::engine::cpu
