#include <gtest/gtest.h>

#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorType;

struct Shape {
  uint32_t rows;
  uint32_t blocks;
  uint32_t row_count;
};

constexpr Shape kShapes[] = {{1, 1, 1},   {16, 1, 1},  {17, 2, 2},  {40, 3, 3}, {33, 5, 4},
                             {64, 4, 5},  {5, 7, 6},   {80, 2, 7},  {31, 3, 8}, {16, 6, 9},
                             {48, 1, 15}, {100, 2, 1}, {20, 4, 33}, {130, 3, 2}};

std::vector<double> exact_product(const FileBytes& file, std::span<const float> input, uint32_t row_count) {
  const std::vector<float> weights = file.values();
  const uint32_t rows = file.rows(), columns = file.columns();
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

// Whether byte `offset` of a block is part of a float, so that not every value is a plausible one.
bool is_scale_byte(TensorType type, size_t offset) {
  switch (type) {
    case TensorType::q8_0:
    case TensorType::q4_0:
    case TensorType::q5_0:
    case TensorType::iq4_nl:
    case TensorType::iq4_xs:
      return offset < 2;
    case TensorType::q4_1:
    case TensorType::q5_1:
    case TensorType::q4_k:
    case TensorType::q5_k:
      return offset < 4;
    case TensorType::q2_k:
      return offset >= 80;
    case TensorType::q3_k:
      return offset >= 108;
    case TensorType::q6_k:
      return offset >= 208;
    case TensorType::mxfp4:
      return offset == 0;
    case TensorType::f32:
    case TensorType::f16:
    case TensorType::bf16:
    case TensorType::f8_e4m3:
    case TensorType::mxfp4_pairs:
    case TensorType::affine4:
    case TensorType::affine8:
    case TensorType::e8m0:
      return false;
  }
  return false;
}

bool has_nan_codes(TensorType type) {
  return type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16 ||
         type == TensorType::f8_e4m3;
}

class MatrixTest : public ::testing::TestWithParam<WeightKind> {};

TEST_P(MatrixTest, EveryInstructionSetGivesPortableBits) {
  Random random(1);
  for (const Kernels* kernels : product_kernels()) {
    for (const Shape& shape : kShapes) {
      uint32_t columns = shape.blocks * GetParam().block_columns();
      PackedMatrix matrix = pack(random_matrix(GetParam(), shape.rows, columns, random).matrix());
      std::vector<float> input = awkward_values(size_t{shape.row_count} * columns, random);
      EXPECT_TRUE(same_bits(product(reference_kernels(), matrix, input, shape.row_count),
                            product(*kernels, matrix, input, shape.row_count)))
          << to_string(kernels->isa) << " " << shape.rows << " x " << columns << " T " << shape.row_count;
    }
  }
}

TEST_P(MatrixTest, EveryInstructionSetGivesPortableBitsAtTheEdgesOfTheWeights) {
  Random random(2);
  uint32_t columns = 2 * GetParam().block_columns(), rows = 16;
  const TensorType type = GetParam().type;
  for (int fill : {0x00, 0x7f, 0x80, 0xff, 0x3c}) {
    if (has_nan_codes(type) && (fill == 0x7f || fill == 0xff)) continue;
    FileBytes file = random_matrix(GetParam(), rows, columns, random);
    for (size_t i = 0; i < file.weights.size(); ++i) {
      if (!is_scale_byte(type, i % formats::type_info(type).block_bytes))
        file.weights[i] = static_cast<std::byte>(fill);
    }
    PackedMatrix matrix = pack(file.matrix());
    std::vector<float> input(size_t{9} * columns, 1.0f);  // every int8 is 127
    for (size_t i = 0; i < input.size(); ++i) {
      if (i / columns % 2 == 1) input[i] = -1.0f;
    }
    std::vector<float> expected = product(reference_kernels(), matrix, input, 9);
    for (const Kernels* kernels : product_kernels()) {
      EXPECT_TRUE(same_bits(expected, product(*kernels, matrix, input, 9)))
          << to_string(kernels->isa) << " fill " << fill;
    }
    std::vector<double> exact = exact_product(file, input, 9);
    for (size_t i = 0; i < exact.size(); ++i) {
      EXPECT_NEAR(expected[i], exact[i], 1e-4 * std::abs(exact[i]) + 1e-3)
          << "fill " << fill << " value " << i;
    }
  }
}

TEST_P(MatrixTest, ProductIsCloseToTheExactOne) {
  Random random(3);
  uint32_t columns = 4 * GetParam().block_columns(), rows = 37, row_count = 5;
  FileBytes file = random_matrix(GetParam(), rows, columns, random);
  PackedMatrix matrix = pack(file.matrix());
  std::vector<float> input = normal_values(size_t{row_count} * columns, random);
  std::vector<float> seen = product(reference_kernels(), matrix, input, row_count);
  std::vector<double> exact = exact_product(file, input, row_count);
  double error = 0, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += (seen[i] - exact[i]) * (seen[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  EXPECT_GT(size, 0);
  EXPECT_LT(std::sqrt(error / size), matrix.activation_format() == ActivationFormat::f32 ? 1e-6 : 0.012);
}

// With activations that int8 holds exactly, nothing but the float sum is rounded.
TEST_P(MatrixTest, ProductOfWholeNumbersIsTheExactOne) {
  Random random(10);
  uint32_t columns = 3 * GetParam().block_columns(), rows = 33, row_count = 3;
  FileBytes file = random_matrix(GetParam(), rows, columns, random);
  std::vector<float> input(size_t{row_count} * columns);
  for (size_t i = 0; i < input.size(); ++i) {
    input[i] = i % 32 == 0 ? 127.0f : static_cast<float>(static_cast<int>(random() % 255) - 127);
  }
  std::vector<float> seen = product(reference_kernels(), pack(file.matrix()), input, row_count);
  std::vector<double> exact = exact_product(file, input, row_count);
  double largest = 0;
  for (double value : exact) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < exact.size(); ++i) EXPECT_NEAR(seen[i], exact[i], 3e-6 * largest) << i;
}

TEST_P(MatrixTest, RowDoesNotDependOnTheOtherRows) {
  Random random(4);
  uint32_t columns = 3 * GetParam().block_columns(), rows = 50, row_count = 19;
  PackedMatrix matrix = pack(random_matrix(GetParam(), rows, columns, random).matrix());
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
  uint32_t columns = 8 * GetParam().block_columns(), rows = 700, row_count = 9;
  PackedMatrix matrix = pack(random_matrix(GetParam(), rows, columns, random).matrix());
  std::vector<float> input = awkward_values(size_t{row_count} * columns, random);
  const Kernels& kernels = **select_kernels(std::nullopt);
  std::vector<float> alone = product(kernels, matrix, input, row_count, 1);
  for (unsigned threads : {2u, 3u, 5u}) {
    EXPECT_TRUE(same_bits(alone, product(kernels, matrix, input, row_count, threads)))
        << threads << " threads";
  }
}

TEST_P(MatrixTest, ANotANumberSpoilsItsRowAlone) {
  Random random(7);
  uint32_t columns = 2 * GetParam().block_columns(), rows = 20;
  PackedMatrix matrix = pack(random_matrix(GetParam(), rows, columns, random).matrix());
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

INSTANTIATE_TEST_SUITE_P(Types, MatrixTest, ::testing::ValuesIn(all_kinds()),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace shoal::engine::cpu
