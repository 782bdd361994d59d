#include "engine/cpu/matrix_product.h"

#include <gtest/gtest.h>

#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

// One matrix of each kind, of 90 rows.
std::vector<PackedMatrix> one_of_each(uint32_t columns, Random& random) {
  std::vector<PackedMatrix> matrices;
  for (const WeightKind& kind : all_kinds()) {
    matrices.push_back(pack(random_matrix(kind, 90, columns, random).matrix()));
  }
  return matrices;
}

TEST(MatrixProduct, SeveralMatricesAtOnceGiveWhatEachGivesAlone) {
  Random random(9);
  uint32_t columns = 512, row_count = 3;
  std::vector<PackedMatrix> matrices = one_of_each(columns, random);
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

TEST(MatrixProduct, JobsWithRowsOfTheirOwnGiveWhatEachRowGivesAlone) {
  Random random(11);
  constexpr uint32_t kColumns = 512, kRows = 90, kTokens = 40, kPad = 3;
  std::vector<PackedMatrix> matrices = one_of_each(kColumns, random);
  const size_t input_stride = kColumns + 7;
  std::vector<float> input = awkward_values(kTokens * input_stride, random);
  for (Isa isa : available_isas()) {
    const Kernels& kernels = **select_kernels(isa);
    std::vector<std::vector<uint32_t>> rows(matrices.size());
    std::vector<std::vector<float>> outputs(matrices.size());
    std::vector<ProductJob> jobs;
    for (size_t i = 0; i < matrices.size(); ++i) {
      rows[i].resize(random() % 20);
      for (uint32_t& row : rows[i]) row = static_cast<uint32_t>(random() % kTokens);
      auto count = static_cast<uint32_t>(rows[i].size());
      outputs[i].assign(size_t{count} * (kRows + kPad), -7.0f);
      jobs.push_back(
          {&matrices[i], input.data(), input_stride, rows[i].data(), count, outputs[i].data(), kRows + kPad});
    }
    ThreadPool pool(3);
    Arena arena;
    MatrixProduct(kernels, pool, arena).run_jobs(jobs);
    EXPECT_EQ(arena.live_blocks(), 0u);
    for (size_t i = 0; i < matrices.size(); ++i) {
      for (size_t t = 0; t < rows[i].size(); ++t) {
        std::span row = std::span(input).subspan(rows[i][t] * input_stride, kColumns);
        std::span seen = std::span(outputs[i]).subspan(t * (kRows + kPad), kRows + kPad);
        EXPECT_TRUE(same_bits(product(kernels, matrices[i], row, 1), seen.first(kRows))) << i << " row " << t;
        for (float untouched : seen.subspan(kRows)) EXPECT_EQ(untouched, -7.0f);
      }
    }
  }
}

TEST(MatrixProduct, JobsThatShareTheirRowsGiveWhatTheyGiveApart) {
  Random random(12);
  constexpr uint32_t kColumns = 512, kRows = 90, kTokens = 5;
  std::vector<PackedMatrix> matrices = one_of_each(kColumns, random);
  std::vector<float> input = normal_values(size_t{2} * kTokens * kColumns, random);
  const Kernels& kernels = **select_kernels(std::nullopt);
  std::vector<float> outputs(matrices.size() * 2 * kTokens * kRows);
  std::vector<ProductJob> jobs;
  for (size_t i = 0; i < matrices.size(); ++i) {
    for (size_t part = 0; part < 2; ++part) {
      jobs.push_back({.matrix = &matrices[i],
                      .input = input.data() + part * kTokens * kColumns,
                      .input_stride = kColumns,
                      .row_count = kTokens,
                      .output = outputs.data() + jobs.size() * kTokens * kRows,
                      .output_stride = kRows});
    }
  }
  ThreadPool pool(2);
  Arena arena;
  MatrixProduct(kernels, pool, arena).run_jobs(jobs);
  for (size_t i = 0; i < matrices.size(); ++i) {
    EXPECT_TRUE(same_bits(product(kernels, matrices[i], input, 2 * kTokens),
                          std::span(outputs).subspan(i * 2 * kTokens * kRows, 2 * kTokens * kRows)))
        << i;
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
