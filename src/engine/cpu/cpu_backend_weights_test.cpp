// Weights out of checkpoints of every format: what is loaded multiplies as the file's exact values do.
#include <gtest/gtest.h>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine {
namespace {

using formats::TensorInfo;

constexpr const char* kCheckpoints[] = {"gguf/gpt_oss_mxfp4-mxfp4.gguf",
                                        "gguf/qwen3_moe-f16.gguf",
                                        "gguf/llama-bf16.gguf",
                                        "models/gpt_oss_mxfp4",
                                        "models/llama",
                                        "mlx/mlx_dense-4bit",
                                        "mlx/mlx_dense-8bit",
                                        "mlx/mlx_moe-4bit",
                                        "quants/llama_q-IQ4_NL/model.gguf",
                                        "quants/llama_q-IQ4_XS/model.gguf",
                                        "quants/llama_q-MXFP4/model.gguf",
                                        "quants/llama_q-Q2_K/model.gguf",
                                        "quants/llama_q-Q3_K_M/model.gguf",
                                        "quants/llama_q-Q4_0/model.gguf",
                                        "quants/llama_q-Q4_1/model.gguf",
                                        "quants/llama_q-Q4_K_M/model.gguf",
                                        "quants/llama_q-Q5_0/model.gguf",
                                        "quants/llama_q-Q5_1/model.gguf",
                                        "quants/llama_q-Q5_K_M/model.gguf",
                                        "quants/llama_q-Q6_K/model.gguf",
                                        "quants/llama_q-Q8_0/model.gguf"};

formats::Checkpoint fixture(const std::string& name) {
  auto checkpoint = formats::Checkpoint::open(std::string(SHOAL_SOURCE_DIR "/tests/fixtures/") + name);
  EXPECT_TRUE(checkpoint.has_value()) << name;
  return *std::move(checkpoint);
}

CpuBackend backend() {
  auto created = CpuBackend::create({.thread_count = 2});
  EXPECT_TRUE(created.has_value());
  return *std::move(created);
}

// Rows of whole numbers, which int8 holds exactly.
std::vector<float> whole_numbers(uint32_t count) {
  std::vector<float> values(count);
  for (uint32_t i = 0; i < count; ++i) values[i] = static_cast<float>(static_cast<int>(i * 37 % 255) - 127);
  for (uint32_t i = 0; i < count; i += 32) values[i] = 127;
  return values;
}

std::vector<float> exact_values(const formats::Checkpoint& checkpoint, const TensorInfo& info,
                                uint32_t index) {
  const uint64_t rows = info.shape[info.shape.size() - 2], columns = info.shape.back();
  std::vector<float> values(rows * columns);
  EXPECT_TRUE(formats::dequantise_rows(checkpoint, info, index * rows, values).has_value());
  return values;
}

void expect_product(std::span<const float> weights, std::span<const float> input,
                    std::span<const float> seen) {
  double largest = 0;
  std::vector<double> exact(seen.size());
  for (size_t n = 0; n < seen.size(); ++n) {
    for (size_t k = 0; k < input.size(); ++k)
      exact[n] += double{weights[n * input.size() + k]} * double{input[k]};
    largest = std::max(largest, std::abs(exact[n]));
  }
  for (size_t n = 0; n < seen.size(); ++n) ASSERT_NEAR(seen[n], exact[n], 1e-5 * largest) << n;
}

std::vector<float> input_step(CpuBackend& b, std::span<const float> hidden, const auto& function) {
  const int32_t position = 0;
  const SequenceRows rows = {.first_row = 0, .row_count = 1, .context_tokens = 0, .pages = {}};
  const StepView step = {
      .token_ids = {}, .positions = {&position, 1}, .sequences = {&rows, 1}, .output_rows = {}};
  b.begin(step);
  const CpuTensor x = b.input(step, hidden);
  const auto values = b.output(function(x));
  return {values->begin(), values->end()};
}

TEST(CpuWeights, EveryMatrixOfEveryFormatMultipliesAsItsExactValuesDo) {
  CpuBackend b = backend();
  for (const char* name : kCheckpoints) {
    const formats::Checkpoint checkpoint = fixture(name);
    size_t matrices = 0;
    for (const TensorInfo& info : checkpoint.tensors()) {
      if (info.shape.size() < 2 || info.shape.size() > 3 || info.shape[info.shape.size() - 2] == 1) continue;
      const uint32_t index = info.shape.size() == 3 ? static_cast<uint32_t>(info.shape[0]) - 1 : 0;
      auto weight = b.load_matrix(checkpoint, {.tensor = &info, .index = index});
      ASSERT_TRUE(weight.has_value()) << name << " " << info.name << ": " << weight.error().message;
      const std::vector<float> input = whole_numbers(static_cast<uint32_t>(info.shape.back()));
      const std::vector<float> seen = input_step(b, input, [&](CpuTensor x) { return b.linear(x, *weight); });
      SCOPED_TRACE(std::string(name) + " " + info.name);
      ASSERT_NO_FATAL_FAILURE(expect_product(exact_values(checkpoint, info, index), input, seen));
      ++matrices;
    }
    EXPECT_GT(matrices, 5u) << name;
  }
}

// Activations that int8 cannot hold, against a matrix that must not add that error.
TEST(CpuWeights, ExactMatricesMeetActivationsAsTheyAre) {
  CpuBackend b = backend();
  const formats::Checkpoint checkpoint = fixture("mlx/mlx_moe-4bit");
  const TensorInfo& router = *checkpoint.find("model.layers.1.mlp.gate.weight");
  ASSERT_NE(router.scales, nullptr) << "the fixture's router is quantised";
  std::vector<float> input(router.shape.back());
  for (size_t i = 0; i < input.size(); ++i) input[i] = 1 / static_cast<float>(3 + 7 * i);
  auto weight = b.load_matrix(checkpoint, {.tensor = &router, .exact = true});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  const std::vector<float> seen = input_step(b, input, [&](CpuTensor x) { return b.linear(x, *weight); });
  expect_product(exact_values(checkpoint, router, 0), input, seen);
}

TEST(CpuWeights, EmbeddingsOfEveryFormatGiveTheirExactRows) {
  CpuBackend b = backend();
  for (const char* name : kCheckpoints) {
    const formats::Checkpoint checkpoint = fixture(name);
    const TensorInfo* info = checkpoint.find("token_embd.weight");
    if (!info) info = checkpoint.find("model.embed_tokens.weight");
    ASSERT_NE(info, nullptr) << name;
    const CpuWeight embedding = *b.load_embedding(checkpoint, *info);
    const std::vector<int32_t> tokens = {0, 7, static_cast<int32_t>(info->shape[0]) - 1},
                               positions = {0, 1, 2};
    const SequenceRows rows = {.first_row = 0, .row_count = 3, .context_tokens = 0, .pages = {}};
    const StepView step = {
        .token_ids = tokens, .positions = positions, .sequences = {&rows, 1}, .output_rows = {}};
    b.begin(step);
    const CpuTensor seen = b.embed(embedding, step);
    const std::vector<float> exact = exact_values(checkpoint, *info, 0);
    for (uint32_t i = 0; i < 3; ++i) {
      const size_t row = static_cast<size_t>(tokens[i]) * seen.columns;
      EXPECT_TRUE(cpu::same_bits(std::span(exact).subspan(row, seen.columns), {seen.row(i), seen.columns}))
          << name;
    }
  }
}

TEST(CpuWeights, StackOfHeadsMultipliesHeadByHead) {
  CpuBackend b = backend();
  const formats::Checkpoint checkpoint = fixture("models/llama");
  const TensorInfo& info = *checkpoint.find("model.layers.0.mlp.gate_proj.weight");
  const auto columns = static_cast<uint32_t>(info.shape[1]);
  std::vector<MatrixSource> sources;
  for (uint32_t head = 0; head < 3; ++head)
    sources.push_back({.tensor = &info, .rows = {head * 16, 8, 0, 1}});
  const CpuWeight stack = *b.load_stack(checkpoint, sources);
  cpu::Random random(3);
  const std::vector<float> input = cpu::normal_values(size_t{3} * columns, random);
  const std::vector<float> seen = input_step(b, input, [&](CpuTensor x) { return b.head_linear(x, stack); });
  ASSERT_EQ(seen.size(), 24u);
  for (uint32_t head = 0; head < 3; ++head) {
    const CpuWeight alone = *b.load_matrix(checkpoint, sources[head]);
    const std::span part = std::span(input).subspan(size_t{head} * columns, columns);
    EXPECT_TRUE(cpu::same_bits(input_step(b, part, [&](CpuTensor x) { return b.linear(x, alone); }),
                               std::span(seen).subspan(size_t{head} * 8, 8)));
  }
}

TEST(CpuWeights, RefusesSourcesThatTheTensorDoesNotHave) {
  CpuBackend b = backend();
  const formats::Checkpoint checkpoint = fixture("models/llama");
  const TensorInfo& info = *checkpoint.find("model.layers.0.mlp.gate_proj.weight");
  const TensorInfo& norm = *checkpoint.find("model.norm.weight");
  const auto rows = static_cast<uint32_t>(info.shape[0]);
  for (const MatrixSource& source :
       {MatrixSource{.tensor = &norm, .index = 1}, MatrixSource{.tensor = &info, .index = 1},
        MatrixSource{.tensor = &info, .rows = {rows, 0, 0, 1}},
        MatrixSource{.tensor = &info, .rows = {0, 2, rows, 2}},
        MatrixSource{.tensor = &info, .columns = {0, 4'000'000'000u, 4'000'000'000u, 4'000'000'000u}}}) {
    auto weight = b.load_matrix(checkpoint, source);
    ASSERT_FALSE(weight.has_value());
    EXPECT_EQ(weight.error().code, ErrorCode::unsupported);
  }
  const VectorSource beyond[] = {{.tensor = &norm, .values = {0, 1, 1, 100'000}}};
  EXPECT_FALSE(b.load_vector(checkpoint, beyond).has_value());
  const VectorSource entry[] = {{.tensor = &info, .index = rows}};
  EXPECT_FALSE(b.load_vector(checkpoint, entry).has_value());
}

}  // namespace
}  // namespace shoal::engine
