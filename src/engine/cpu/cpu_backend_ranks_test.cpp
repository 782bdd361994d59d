// What a rank of a tensor-parallel stage needs of the backend: parts of weights, sums and gathers over a
// group, and the end of a step whose group is lost.
#include <cmath>
#include <gtest/gtest.h>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine {
namespace {

using cpu::Random;

formats::Checkpoint fixture(const std::string& name) {
  auto checkpoint = formats::Checkpoint::open(std::string(SHOAL_SOURCE_DIR "/tests/fixtures/") + name);
  EXPECT_TRUE(checkpoint.has_value()) << name;
  return *std::move(checkpoint);
}

CpuBackend backend(RankGroup* ranks = nullptr) {
  auto created = CpuBackend::create({.thread_count = 2, .ranks = ranks});
  EXPECT_TRUE(created.has_value());
  return *std::move(created);
}

// Calls compute(step, x) for x [rows, columns] and gives its output.
template <class Compute>
Result<std::vector<float>> run(CpuBackend& b, std::span<const float> x, uint32_t rows, Compute compute) {
  const std::vector<int32_t> positions(rows);
  const SequenceRows sequence = {.first_row = 0, .row_count = rows, .context_tokens = 0, .pages = {}};
  const StepView step = {
      .token_ids = {}, .positions = positions, .sequences = {&sequence, 1}, .output_rows = {}};
  b.begin(step);
  auto output = b.output(compute(b.input(step, x)));
  if (!output) return std::unexpected(output.error());
  return std::vector<float>(output->begin(), output->end());
}

// Types with blocks of 32 and 256 values, groups of 64, and none; the columns of the last part of each are
// not whole blocks, so that they become f32.
TEST(CpuRanks, PartsOfAMatrixMakeUpTheWhole) {
  const std::pair<const char*, const char*> cases[] = {
      {"quants/llama_q-Q8_0/model.gguf", "blk.0.ffn_gate.weight"},
      {"quants/llama_q-Q4_K_M/model.gguf", "blk.0.ffn_gate.weight"},
      {"quants/llama_q-MXFP4/model.gguf", "blk.0.ffn_gate.weight"},
      {"mlx/mlx_dense-4bit", "model.layers.0.mlp.gate_proj.weight"},
      {"models/llama", "model.layers.0.mlp.gate_proj.weight"}};
  for (const auto& [path, name] : cases) {
    const formats::Checkpoint checkpoint = fixture(path);
    const formats::TensorInfo& info = *checkpoint.find(name);
    const auto rows = static_cast<uint32_t>(info.shape[0]), columns = static_cast<uint32_t>(info.shape[1]);
    CpuBackend b = backend();
    const CpuWeight whole = *b.load_matrix(checkpoint, {.tensor = &info});
    Random random(5);
    const std::vector<float> x = cpu::normal_values(columns, random);
    const std::vector<float> expected = *run(b, x, 1, [&](CpuTensor in) { return b.linear(in, whole); });

    std::vector<float> joined;
    for (const Slice& part : {Slice{0, 5}, Slice{5, 48}, Slice{53}}) {
      const CpuWeight some = *b.load_matrix(checkpoint, {.tensor = &info, .part_rows = part});
      EXPECT_EQ(some.matrix.rows(), part.size(rows));
      const std::vector<float> values = *run(b, x, 1, [&](CpuTensor in) { return b.linear(in, some); });
      joined.insert(joined.end(), values.begin(), values.end());
    }
    EXPECT_TRUE(cpu::same_bits(joined, expected)) << path;

    std::vector<float> sum(rows);
    for (const Slice& part : {Slice{0, columns / 2}, Slice{columns / 2, 20}, Slice{columns / 2 + 20}}) {
      const CpuWeight some = *b.load_matrix(checkpoint, {.tensor = &info, .part_columns = part});
      const uint32_t size = part.size(columns);
      EXPECT_EQ(some.matrix.columns(), size);
      const std::vector<float> values = *run(b, std::span(x).subspan(part.first, size), 1,
                                             [&](CpuTensor in) { return b.linear(in, some); });
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
    }
    // Quantised activations differ where scales are of other neighbours.
    float largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < sum.size(); ++i) ASSERT_NEAR(sum[i], expected[i], 0.02 * largest) << path << i;
  }
}

TEST(CpuRanks, PartsThatAMatrixOrVectorDoesNotHaveAreRefused) {
  const formats::Checkpoint checkpoint = fixture("models/llama");
  const formats::TensorInfo& info = *checkpoint.find("model.layers.0.mlp.gate_proj.weight");
  const formats::TensorInfo& norm = *checkpoint.find("model.norm.weight");
  const auto rows = static_cast<uint32_t>(info.shape[0]), values = static_cast<uint32_t>(norm.shape[0]);
  CpuBackend b = backend();
  for (const Slice& part : {Slice{0, 0}, Slice{rows}, Slice{1, rows}, Slice{UINT32_MAX - 1, 2}}) {
    const auto weight = b.load_matrix(checkpoint, {.tensor = &info, .part_rows = part});
    ASSERT_FALSE(weight.has_value());
    EXPECT_EQ(weight.error().code, ErrorCode::unsupported);
  }
  const VectorSource some[] = {{.tensor = &norm, .part = {3, 2}}, {.tensor = &norm, .part = {values - 1}}};
  EXPECT_EQ(b.load_vector(checkpoint, some)->vector.size(), 3u);
  const VectorSource beyond[] = {{.tensor = &norm, .part = {1, values}}};
  EXPECT_EQ(b.load_vector(checkpoint, beyond).error().code, ErrorCode::unsupported);
}

// Two other ranks that always say the same, until they are gone.
class FakeGroup final : public RankGroup {
 public:
  Result<> sum(std::span<float> values) override {
    ++calls;
    if (is_lost) return fail(ErrorCode::unavailable, "rank 2 is gone");
    for (float& value : values) value = value + 10 + 100;
    return {};
  }
  Result<> gather(std::span<const float> mine, std::span<float> all,
                  std::span<const uint32_t> counts) override {
    ++calls;
    if (is_lost) return fail(ErrorCode::unavailable, "rank 2 is gone");
    EXPECT_EQ(mine.size(), counts[0]);
    std::ranges::copy(mine, all.begin());
    for (size_t i = mine.size(); i < all.size(); ++i) all[i] = static_cast<float>(100 + i - mine.size());
    return {};
  }

  bool is_lost = false;
  int calls = 0;
};

TEST(CpuRanks, SumsAndGathersGoThroughTheGroup) {
  FakeGroup group;
  CpuBackend b = backend(&group);
  const std::vector<float> x = {1, 2, 3, 4, 5, 6};
  EXPECT_EQ(*run(b, x, 2, [&](CpuTensor in) { return b.all_reduce(b.zeros(in)); }),
            std::vector<float>(6, 110));
  const std::vector<uint32_t> counts = {3, 2, 0, 1};
  EXPECT_EQ(*run(b, x, 2, [&](CpuTensor in) { return b.all_gather(in, counts); }),
            (std::vector<float>{1, 2, 3, 100, 101, 104, 4, 5, 6, 102, 103, 105}));
  EXPECT_EQ(*run(b, std::span(x).first(3), 1, [&](CpuTensor in) { return b.all_gather(in, counts); }),
            (std::vector<float>{1, 2, 3, 100, 101, 102}));
}

TEST(CpuRanks, ALostRankIsTheErrorOfItsStepAndNothingElseIsExchangedInIt) {
  FakeGroup group;
  CpuBackend b = backend(&group);
  const std::vector<float> x = {1, 2};
  group.is_lost = true;
  const auto lost = run(b, x, 1, [&](CpuTensor in) {
    EXPECT_FALSE(b.failed());
    in = b.all_reduce(in);
    EXPECT_TRUE(b.failed());
    return b.all_gather(b.all_reduce(in), std::vector<uint32_t>{2, 5});
  });
  ASSERT_FALSE(lost.has_value());
  EXPECT_EQ(lost.error().code, ErrorCode::unavailable);
  EXPECT_EQ(group.calls, 1);
}

}  // namespace
}  // namespace shoal::engine
