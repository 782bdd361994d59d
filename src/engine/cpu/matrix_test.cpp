#include <gtest/gtest.h>

#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorType;

struct Shape {
  uint32_t rows;
  uint32_t blocks;  // of 32 or 256 columns; float types take 32 columns a block
  uint32_t row_count;
};

constexpr Shape kShapes[] = {{1, 1, 1},   {16, 1, 1},  {17, 2, 2},  {40, 3, 3}, {33, 5, 4},
                             {64, 4, 5},  {5, 7, 6},   {80, 2, 7},  {31, 3, 8}, {16, 6, 9},
                             {48, 1, 15}, {100, 2, 1}, {20, 4, 33}, {130, 3, 2}};

uint32_t columns_of(TensorType type, uint32_t blocks) {
  return blocks * std::max(32u, formats::type_info(type).block_values);
}

std::vector<double> exact_product(TensorType type, const Bytes& bytes, uint32_t rows, uint32_t columns,
                                  std::span<const float> input, uint32_t row_count) {
  std::vector<float> weights(size_t{rows} * columns);
  EXPECT_TRUE(formats::dequantise(type, bytes, weights).has_value());
  std::vector<double> output(size_t{row_count} * rows);
  for (uint32_t t = 0; t < row_count; ++t) {
    for (uint32_t n = 0; n < rows; ++n) {
      double sum = 0;
      for (uint32_t k = 0; k < columns; ++k) {
        sum += double{input[size_t{t} * columns + k]} * double{weights[size_t{n} * columns + k]};
      }
      output[size_t{t} * rows + n] = sum;
    }
  }
  return output;
}

class MatrixTest : public ::testing::TestWithParam<TensorType> {};

TEST_P(MatrixTest, EveryInstructionSetGivesPortableBits) {
  Random random(1);
  for (const Kernels* kernels : fast_kernels()) {
    for (const Shape& shape : kShapes) {
      uint32_t columns = columns_of(GetParam(), shape.blocks);
      Bytes bytes = random_weights(GetParam(), shape.rows, columns, random);
      PackedMatrix matrix = pack(GetParam(), bytes, shape.rows, columns);
      std::vector<float> input = awkward_values(size_t{shape.row_count} * columns, random);
      EXPECT_TRUE(same_bits(product(reference_kernels(), matrix, input, shape.row_count),
                            product(*kernels, matrix, input, shape.row_count)))
          << to_string(kernels->isa) << " " << shape.rows << " x " << columns << " T " << shape.row_count;
    }
  }
}

TEST_P(MatrixTest, EveryInstructionSetGivesPortableBitsAtTheEdgesOfTheWeights) {
  Random random(2);
  uint32_t columns = columns_of(GetParam(), 2), rows = 16;
  for (int fill : {0x00, 0x7f, 0x80, 0xff, 0x3c}) {
    if (formats::type_info(GetParam()).block_values == 1 && (fill == 0x7f || fill == 0xff)) continue;  // NaN
    Bytes bytes = random_weights(GetParam(), rows, columns, random);
    const formats::TensorTypeInfo& info = formats::type_info(GetParam());
    size_t scale_bytes = GetParam() == TensorType::q4_k ? 4 : 2;
    size_t first = GetParam() == TensorType::q6_k ? 0 : scale_bytes, end = info.block_bytes;
    if (GetParam() == TensorType::q6_k) end -= 2;
    if (info.block_values == 1) first = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (i % info.block_bytes >= first && i % info.block_bytes < end)
        bytes[i] = static_cast<std::byte>(fill);
    }
    PackedMatrix matrix = pack(GetParam(), bytes, rows, columns);
    std::vector<float> input(size_t{9} * columns, 1.0f);  // every int8 is 127
    for (size_t i = 0; i < input.size(); ++i) {
      if (i / columns % 2 == 1) input[i] = -1.0f;
    }
    std::vector<float> expected = product(reference_kernels(), matrix, input, 9);
    for (const Kernels* kernels : fast_kernels()) {
      EXPECT_TRUE(same_bits(expected, product(*kernels, matrix, input, 9)))
          << to_string(kernels->isa) << " fill " << fill;
    }
    std::vector<double> exact = exact_product(GetParam(), bytes, rows, columns, input, 9);
    for (size_t i = 0; i < exact.size(); ++i) {
      EXPECT_NEAR(expected[i], exact[i], 1e-4 * std::abs(exact[i]) + 1e-3)
          << "fill " << fill << " value " << i;
    }
  }
}

TEST_P(MatrixTest, ProductIsCloseToTheExactOne) {
  Random random(3);
  uint32_t columns = columns_of(GetParam(), 4), rows = 37, row_count = 5;
  Bytes bytes = random_weights(GetParam(), rows, columns, random);
  std::vector<float> input = normal_values(size_t{row_count} * columns, random);
  std::vector<float> seen =
      product(reference_kernels(), pack(GetParam(), bytes, rows, columns), input, row_count);
  std::vector<double> exact = exact_product(GetParam(), bytes, rows, columns, input, row_count);
  double error = 0, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += (seen[i] - exact[i]) * (seen[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  bool floats = formats::type_info(GetParam()).block_values == 1;
  EXPECT_GT(size, 0);
  EXPECT_LT(std::sqrt(error / size), floats ? 1e-6 : 0.012);
}

TEST_P(MatrixTest, RowDoesNotDependOnTheOtherRows) {
  Random random(4);
  uint32_t columns = columns_of(GetParam(), 3), rows = 50, row_count = 19;
  PackedMatrix matrix = pack(GetParam(), random_weights(GetParam(), rows, columns, random), rows, columns);
  std::vector<float> input = awkward_values(size_t{row_count} * columns, random);
  for (Isa isa : available_isas()) {
    const Kernels& kernels = **select_kernels(isa);
    std::vector<float> together = product(kernels, matrix, input, row_count);
    for (uint32_t t = 0; t < row_count; ++t) {
      std::vector<float> alone = product(kernels, matrix, std::span(input).subspan(t * columns, columns), 1);
      EXPECT_TRUE(same_bits(std::span(together).subspan(t * rows, rows), alone))
          << to_string(isa) << " row " << t;
    }
  }
}

TEST_P(MatrixTest, ProductDoesNotDependOnTheThreadCount) {
  Random random(5);
  uint32_t columns = columns_of(GetParam(), 8), rows = 700, row_count = 9;
  PackedMatrix matrix = pack(GetParam(), random_weights(GetParam(), rows, columns, random), rows, columns);
  std::vector<float> input = awkward_values(size_t{row_count} * columns, random);
  const Kernels& kernels = **select_kernels(std::nullopt);
  std::vector<float> alone = product(kernels, matrix, input, row_count, 1);
  for (unsigned threads : {2u, 3u, 5u}) {
    EXPECT_TRUE(same_bits(alone, product(kernels, matrix, input, row_count, threads)))
        << threads << " threads";
  }
}

TEST_P(MatrixTest, ShareOfAMatrixGivesItsShareOfTheProduct) {
  Random random(6);
  uint32_t block = std::max(32u, formats::type_info(GetParam()).block_values);
  uint32_t columns = 4 * block, rows = 48;
  Bytes bytes = random_weights(GetParam(), rows, columns, random);
  ThreadPool pool(1);
  std::vector<float> input = normal_values(columns, random);
  std::vector<float> whole = product(reference_kernels(), pack(GetParam(), bytes, rows, columns), input, 1);

  auto lower = PackedMatrix::pack(GetParam(), bytes, columns, 20, 28, 0, columns, pool);
  ASSERT_TRUE(lower.has_value());
  EXPECT_TRUE(same_bits(std::span(whole).subspan(20), product(reference_kernels(), *lower, input, 1)));

  std::vector<float> sum(rows);
  for (uint32_t half = 0; half < 2; ++half) {
    auto part = PackedMatrix::pack(GetParam(), bytes, columns, 0, rows, half * 2 * block, 2 * block, pool);
    ASSERT_TRUE(part.has_value());
    std::vector<float> output =
        product(reference_kernels(), *part, std::span(input).subspan(half * 2 * block, 2 * block), 1);
    for (uint32_t n = 0; n < rows; ++n) sum[n] += output[n];
  }
  for (uint32_t n = 0; n < rows; ++n) EXPECT_NEAR(sum[n], whole[n], 1e-4 * (1 + std::abs(whole[n])));
}

TEST_P(MatrixTest, ANotANumberSpoilsItsRowAlone) {
  Random random(7);
  uint32_t columns = columns_of(GetParam(), 2), rows = 20;
  PackedMatrix matrix = pack(GetParam(), random_weights(GetParam(), rows, columns, random), rows, columns);
  std::vector<float> input = normal_values(size_t{3} * columns, random);
  std::vector<float> clean = product(reference_kernels(), matrix, input, 3);
  input[columns + 5] = NAN;
  for (Isa isa : available_isas()) {
    std::vector<float> spoilt = product(**select_kernels(isa), matrix, input, 3);
    for (uint32_t n = 0; n < rows; ++n) {
      EXPECT_TRUE(std::isnan(spoilt[rows + n]));
      EXPECT_EQ(spoilt[n], clean[n]);
      EXPECT_EQ(spoilt[2 * rows + n], clean[2 * rows + n]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatrixTest, ::testing::ValuesIn(kAllTypes),
                         [](const auto& test) { return std::string(to_string(test.param)); });

TEST(PackedMatrix, TakesAboutTheBytesOfTheFile) {
  Random random(8);
  for (TensorType type : kAllTypes) {
    uint32_t rows = 64, columns = 1024;
    Bytes bytes = random_weights(type, rows, columns, random);
    EXPECT_LE(static_cast<double>(pack(type, bytes, rows, columns).bytes()),
              1.03 * static_cast<double>(bytes.size()))
        << to_string(type);
  }
}

TEST(MatrixProduct, SeveralMatricesAtOnceGiveWhatEachGivesAlone) {
  Random random(9);
  uint32_t columns = 512, row_count = 3;
  std::vector<PackedMatrix> matrices;
  for (TensorType type : kAllTypes) {
    matrices.push_back(pack(type, random_weights(type, 90, columns, random), 90, columns));
  }
  std::vector<float> input = normal_values(size_t{row_count} * columns, random);
  const Kernels& kernels = **select_kernels(std::nullopt);
  std::vector<std::vector<float>> outputs(matrices.size(), std::vector<float>(size_t{row_count} * 90));
  std::vector<ProductOutput> targets;
  for (size_t i = 0; i < matrices.size(); ++i) targets.push_back({&matrices[i], outputs[i].data()});
  ThreadPool pool(2);
  Arena arena;
  MatrixProduct(kernels, pool, arena).run(input.data(), row_count, columns, targets);
  for (size_t i = 0; i < matrices.size(); ++i) {
    EXPECT_TRUE(same_bits(product(kernels, matrices[i], input, row_count), outputs[i])) << i;
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
