#include "engine/cpu/packed_matrix.h"

#include <gtest/gtest.h>

#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorType;

PackedMatrix pack_share(const FileMatrix& file, const MatrixShare& share) {
  ThreadPool pool(2);
  auto packed = PackedMatrix::pack(file, share, pool);
  EXPECT_TRUE(packed.has_value());
  return *std::move(packed);
}

// Rows of values as an f32, f16 or bf16 matrix would hold them.
Bytes bytes_of(std::span<const float> values, TensorType type) {
  Bytes bytes;
  for (float value : values) {
    uint32_t word = std::bit_cast<uint32_t>(value);
    if (type == TensorType::f16) word = formats::f32_to_f16(value);
    if (type == TensorType::bf16) word = formats::f32_to_bf16(value);
    for (size_t i = 0; i < formats::type_info(type).block_bytes; ++i)
      bytes.push_back(static_cast<std::byte>(word >> 8 * i));
  }
  return bytes;
}

// The wanted matrix of `file`, value by value.
std::vector<float> wanted_values(const FileBytes& file, const FileMatrix& wanted) {
  const std::vector<float> all = file.values();
  std::vector<float> values;
  for (uint32_t row = 0; row < wanted.rows(); ++row) {
    for (uint32_t column = 0; column < wanted.columns(); ++column) {
      const uint32_t file_row = wanted.chosen_rows.at(wanted.transposed ? column : row);
      const uint32_t file_column = wanted.chosen_columns.at(wanted.transposed ? row : column);
      values.push_back(all[size_t{file_row} * file.columns() + file_column]);
    }
  }
  return values;
}

// That `wanted` is packed as a matrix of `type` with those values is.
void expect_values(const FileBytes& file, const FileMatrix& wanted, TensorType type, Random& random) {
  const uint32_t rows = wanted.rows(), columns = wanted.columns();
  const PackedMatrix expected = pack(type, bytes_of(wanted_values(file, wanted), type), rows, columns);
  const PackedMatrix seen = pack(wanted);
  ASSERT_EQ(seen.rows(), rows);
  ASSERT_EQ(seen.columns(), columns);
  ASSERT_EQ(seen.panel_type(), expected.panel_type());
  const std::vector<float> input = normal_values(columns, random);
  EXPECT_TRUE(same_bits(product(reference_kernels(), expected, input, 1),
                        product(reference_kernels(), seen, input, 1)));
}

bool is_plain(TensorType type) {
  return type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16;
}

class PackedMatrixTest : public ::testing::TestWithParam<WeightKind> {};

TEST_P(PackedMatrixTest, SharesOfAMatrixGiveTheirShareOfTheProduct) {
  Random random(6);
  const uint32_t half = 2 * GetParam().block_columns(), columns = 2 * half, rows = 48;
  const FileBytes file = random_matrix(GetParam(), rows, columns, random);
  const std::vector<float> input = normal_values(columns, random);
  const std::vector<float> whole = product(reference_kernels(), pack(file.matrix()), input, 1);

  const PackedMatrix lower = pack_share(file.matrix(), {.first_row = 20, .rows = 28, .columns = columns});
  EXPECT_TRUE(same_bits(std::span(whole).subspan(20), product(reference_kernels(), lower, input, 1)));

  std::vector<float> sum(rows);
  double largest = 0;
  for (uint32_t first : {0u, half}) {
    const PackedMatrix part =
        pack_share(file.matrix(), {.rows = rows, .first_column = first, .columns = half});
    EXPECT_EQ(part.panel_type(), pack(file.matrix()).panel_type());
    const std::vector<float> output =
        product(reference_kernels(), part, std::span(input).subspan(first, half), 1);
    for (uint32_t n = 0; n < rows; ++n) sum[n] += output[n];
  }
  for (float value : whole) largest = std::max(largest, std::abs(double{value}));
  for (uint32_t n = 0; n < rows; ++n) EXPECT_NEAR(sum[n], whole[n], 1e-4 * (1 + largest));
}

TEST_P(PackedMatrixTest, ChosenRowsGiveTheirRowsOfTheProduct) {
  Random random(13);
  const uint32_t columns = 3 * GetParam().block_columns(), rows = 160;
  const FileBytes file = random_matrix(GetParam(), rows, columns, random);
  const std::vector<float> input = normal_values(columns, random);
  const std::vector<float> whole = product(reference_kernels(), pack(file.matrix()), input, 1);
  for (const Runs& runs : {Runs{3, 17, 40, 4}, Runs{1, 1, 2, 80}, Runs{150, 0, 0, 1}}) {
    FileMatrix chosen = file.matrix();
    chosen.chosen_rows = runs;
    const std::vector<float> seen = product(reference_kernels(), pack(chosen), input, 1);
    ASSERT_EQ(seen.size(), runs.size(rows));
    for (uint32_t n = 0; n < seen.size(); ++n) EXPECT_EQ(seen[n], whole[runs.at(n)]) << n;
  }
}

TEST_P(PackedMatrixTest, ScatteredColumnsKeepFloatsAndWidenBlocks) {
  Random random(14);
  const FileBytes file = random_matrix(GetParam(), 40, 4 * GetParam().block_columns(), random);
  FileMatrix chosen = file.matrix();
  chosen.chosen_columns = {3, 5, 9, 6};
  chosen.chosen_rows = {2, 3, 4, 7};
  expect_values(file, chosen, is_plain(GetParam().type) ? GetParam().type : TensorType::f32, random);
}

TEST_P(PackedMatrixTest, TransposedMatricesKeepFloatsAndWidenBlocks) {
  Random random(15);
  const FileBytes file = random_matrix(GetParam(), 70, 2 * GetParam().block_columns(), random);
  FileMatrix chosen = file.matrix();
  chosen.transposed = true;
  const TensorType type = is_plain(GetParam().type) ? GetParam().type : TensorType::f32;
  expect_values(file, chosen, type, random);
  chosen.chosen_rows = {8, 6, 28, 3};
  chosen.chosen_columns = {1, 1, 2, 16};
  expect_values(file, chosen, type, random);

  const std::vector<float> input = normal_values(chosen.columns(), random);
  const std::vector<float> whole = product(reference_kernels(), pack(chosen), input, 1);
  const PackedMatrix lower = pack_share(chosen, {.first_row = 5, .rows = 11, .columns = chosen.columns()});
  EXPECT_TRUE(same_bits(std::span(whole).subspan(5, 11), product(reference_kernels(), lower, input, 1)));
}

TEST_P(PackedMatrixTest, TakesAboutTheBytesOfTheFile) {
  if (GetParam().group_rows == 5) GTEST_SKIP() << "groups as small as no file has them";
  Random random(8);
  const FileBytes file = random_matrix(GetParam(), 64, 1024, random);
  const size_t bytes = file.weights.size() + file.scales.size() + file.biases.size();
  EXPECT_LE(static_cast<double>(pack(file.matrix()).bytes()), 1.04 * static_cast<double>(bytes));
}

INSTANTIATE_TEST_SUITE_P(Types, PackedMatrixTest, ::testing::ValuesIn(all_kinds()),
                         [](const auto& test) { return name_of(test.param); });

TEST(PackedMatrix, StackLiesInOneStorageAndOutlivesIt) {
  Random random(16);
  ThreadPool pool(3);
  std::vector<FileBytes> files;
  std::vector<FileMatrix> views;
  for (TensorType type : {TensorType::q4_k, TensorType::q6_k, TensorType::q4_k}) {
    files.push_back(random_matrix({type}, 40, 256, random));
  }
  for (const FileBytes& file : files) views.push_back(file.matrix());
  std::vector<std::pair<size_t, size_t>> rounds;
  auto stack = PackedMatrix::pack_stack(views, {.rows = 40, .columns = 256}, pool,
                                        [&](size_t first, size_t end) { rounds.emplace_back(first, end); });
  ASSERT_TRUE(stack.has_value());
  EXPECT_EQ(rounds, (std::vector<std::pair<size_t, size_t>>{{0, 3}}));
  std::vector<PackedMatrix> matrices = *std::move(stack);
  for (size_t i = 1; i < matrices.size(); ++i) {
    const auto gap = static_cast<size_t>(matrices[i].panels() - matrices[i - 1].panels());
    EXPECT_EQ(gap, (matrices[i - 1].bytes() + 63) / 64 * 64);
  }
  const std::vector<float> input = normal_values(256, random);
  const PackedMatrix last = matrices.back();
  matrices.clear();
  EXPECT_TRUE(same_bits(product(reference_kernels(), pack(views[2]), input, 1),
                        product(reference_kernels(), last, input, 1)));
}

TEST(PackedMatrix, RefusesNotANumber) {
  Random random(17);
  ThreadPool pool(2);
  auto refused = [&](const FileBytes& file, bool transposed) {
    FileMatrix matrix = file.matrix();
    matrix.transposed = transposed;
    auto packed = PackedMatrix::pack(matrix, {.rows = matrix.rows(), .columns = matrix.columns()}, pool);
    return !packed.has_value() && packed.error().code == ErrorCode::malformed;
  };
  FileBytes f8 = random_matrix({TensorType::f8_e4m3, TensorType::f32, 128, 128}, 40, 256, random);
  EXPECT_FALSE(refused(f8, false));
  f8.weights[5000] = std::byte{0xff};
  EXPECT_TRUE(refused(f8, false));
  EXPECT_TRUE(refused(f8, true));
  FileBytes fp4 = random_matrix({TensorType::mxfp4}, 40, 256, random);
  EXPECT_FALSE(refused(fp4, false));
  fp4.weights[17 * 300] = std::byte{0xff};
  EXPECT_TRUE(refused(fp4, false));
  FileBytes pairs = random_matrix({TensorType::mxfp4_pairs, TensorType::e8m0, 1, 32}, 40, 256, random);
  pairs.scales[300] = std::byte{0xff};
  EXPECT_TRUE(refused(pairs, false));
}

}  // namespace
}  // namespace shoal::engine::cpu
