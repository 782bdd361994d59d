// Attention through the backend: what a sequence gets does not depend on the sequences beside it.
#include <gtest/gtest.h>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine {
namespace {

using cpu::Random;
using cpu::same_bits;

constexpr uint32_t kPageTokens = 16, kTexts = 3, kTextPages = 8, kHeads = 6, kKvHeads = 2, kHeadDim = 24;
constexpr uint32_t kRank = 40, kRope = 12, kTextTokens = kTextPages * kPageTokens;

// What goes in for every token of three texts: queries, keys and values, or queries, rotated queries, latents
// and rotated values; [texts][tokens, columns].
struct Texts {
  std::vector<uint32_t> columns;
  std::vector<std::vector<float>> inputs[kTexts];
};

Texts random_texts(std::vector<uint32_t> columns, uint64_t seed) {
  Random random(seed);
  Texts texts = {std::move(columns), {}};
  for (auto& inputs : texts.inputs) {
    for (uint32_t width : texts.columns)
      inputs.push_back(cpu::normal_values(size_t{width} * kTextTokens, random));
  }
  return texts;
}

struct Part {
  uint32_t text;
  uint32_t done;
  uint32_t count;
};

// One step over `parts`; layer 0 is attention with sinks and a soft cap, layer 1 latent attention.
std::vector<float> run(CpuBackend& b, const Texts& texts, std::span<const Part> parts) {
  std::vector<std::vector<uint32_t>> pages(parts.size());
  std::vector<SequenceRows> sequences;
  std::vector<int32_t> positions;
  std::vector<std::vector<float>> rows(texts.columns.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [text, done, count] = parts[i];
    for (uint32_t page = 0; page < kTextPages; ++page) pages[i].push_back(page * kTexts + text);
    sequences.push_back({.first_row = static_cast<uint32_t>(positions.size()),
                         .row_count = count,
                         .context_tokens = done,
                         .pages = pages[i]});
    for (uint32_t t = done; t < done + count; ++t) positions.push_back(static_cast<int32_t>(t));
    for (size_t input = 0; input < rows.size(); ++input) {
      const size_t width = texts.columns[input];
      const float* from = texts.inputs[text][input].data() + done * width;
      rows[input].insert(rows[input].end(), from, from + count * width);
    }
  }
  StepView step = {.token_ids = {}, .positions = positions, .sequences = sequences, .output_rows = {}};
  b.begin(step);
  std::vector<CpuTensor> x;
  for (const std::vector<float>& values : rows) x.push_back(b.input(step, values));
  CpuTensor result;
  if (x.size() == 3) {
    CpuWeight sinks;
    sinks.vector = {-3, 0, 1, 2, 3, 4};
    AttentionOp op = {.layer = 0,
                      .query_heads = kHeads,
                      .kv_heads = kKvHeads,
                      .head_dim = kHeadDim,
                      .scale = 0.3f,
                      .window = 50,
                      .softcap = 4};
    result = b.attend(x[0], x[1], x[2], step, op, &sinks);
  } else {
    LatentAttentionOp op = {
        .layer = 1, .query_heads = kHeads, .latent_rank = kRank, .rope_dim = kRope, .scale = 0.3f};
    result = b.attend_latent(x[0], x[1], x[2], x[3], step, op);
  }
  auto values = b.output(result);
  return {values->begin(), values->end()};
}

CpuBackend backend(KvType type, unsigned threads, cpu::Isa isa) {
  return *CpuBackend::create(
      {.thread_count = threads,
       .isa = isa,
       .kv = {.type = type, .page_tokens = kPageTokens, .page_count = kTexts * kTextPages},
       .kv_layers = {{kKvHeads, kHeadDim}, {.latent_rank = kRank, .latent_rope = kRope}}});
}

void check_batches(const Texts& texts, KvType type) {
  const cpu::Isa fastest = cpu::available_isas().back();
  CpuBackend portable = backend(type, 1, cpu::Isa::portable), fast = backend(type, 2, fastest);
  std::vector<float> expected[kTexts], seen[kTexts];
  for (uint32_t text = 0; text < kTexts; ++text) {
    Part whole = {text, 0, 100};
    expected[text] = run(portable, texts, {&whole, 1});
  }
  const size_t columns = expected[0].size() / 100;
  uint32_t done[kTexts] = {};
  for (uint32_t step = 0; done[0] < 100 || done[1] < 100 || done[2] < 100; ++step) {
    std::vector<Part> parts;
    for (uint32_t text = 0; text < kTexts; ++text) {
      const uint32_t chunk = std::array{1u, 29u, 8u}[(step + text) % 3];
      if (done[text] < 100) parts.push_back({text, done[text], std::min(chunk, 100 - done[text])});
    }
    std::vector<float> rows = run(fast, texts, parts);
    auto from = rows.begin();
    for (const Part& part : parts) {
      auto end = from + static_cast<std::ptrdiff_t>(part.count * columns);
      seen[part.text].insert(seen[part.text].end(), from, end);
      done[part.text] += part.count;
      from = end;
    }
  }
  for (uint32_t text = 0; text < kTexts; ++text) EXPECT_TRUE(same_bits(expected[text], seen[text])) << text;
}

TEST(CpuBackendAttention, RowsDoNotDependOnTheSequencesBesideThem) {
  Texts texts = random_texts({kHeads * kHeadDim, kKvHeads * kHeadDim, kKvHeads * kHeadDim}, 51);
  for (KvType type : {KvType::f32, KvType::f16, KvType::q8}) check_batches(texts, type);
}

TEST(CpuBackendAttention, LatentRowsDoNotDependOnTheSequencesBesideThem) {
  Texts texts = random_texts({kHeads * kRank, kHeads * kRope, kRank, kRope}, 52);
  for (KvType type : {KvType::f32, KvType::f16, KvType::q8}) check_batches(texts, type);
}

TEST(CpuBackend, GatesAndScalesWholeTensors) {
  Random random(53);
  CpuBackend b = backend(KvType::f32, 1, cpu::Isa::portable);
  std::vector<float> gate = cpu::normal_values(40, random), up = cpu::normal_values(40, random);
  int32_t positions[] = {0, 1};
  std::vector<uint32_t> pages = {0};
  SequenceRows rows = {.first_row = 0, .row_count = 2, .context_tokens = 0, .pages = pages};
  StepView step = {.token_ids = {}, .positions = positions, .sequences = {&rows, 1}, .output_rows = {}};
  auto gated = [&](Activation activation) {
    b.begin(step);
    auto values = b.output(b.activate_multiply(b.input(step, gate), b.input(step, up), activation));
    return std::vector<float>(values->begin(), values->end());
  };
  using Kind = Activation::Kind;
  std::vector<float> silu = gated({Kind::silu}), sigmoid = gated({Kind::sigmoid}),
                     gelu = gated({Kind::gelu_tanh}),
                     clamped = gated({.kind = Kind::clamped_swiglu, .alpha = 1.5f, .limit = 0.5f});
  b.begin(step);
  auto capped = *b.output(b.softcap(b.scale(b.input(step, gate), 2.0f), 0.7f));
  for (size_t i = 0; i < 40; ++i) {
    const double g = gate[i], u = up[i], low = std::min(g, 0.5), clamp = std::clamp(u, -0.5, 0.5);
    EXPECT_NEAR(silu[i], g / (1 + std::exp(-g)) * u, 1e-6);
    EXPECT_NEAR(sigmoid[i], 1 / (1 + std::exp(-g)) * u, 1e-6);
    EXPECT_NEAR(gelu[i], 0.5 * g * (1 + std::tanh(0.7978845608 * (g + 0.044715 * g * g * g))) * u, 1e-6);
    EXPECT_NEAR(clamped[i], low / (1 + std::exp(-1.5 * low)) * (clamp + 1), 1e-6);
    EXPECT_NEAR(capped[i], 0.7 * std::tanh(2 * g / 0.7), 1e-6);
  }
}

}  // namespace
}  // namespace shoal::engine
