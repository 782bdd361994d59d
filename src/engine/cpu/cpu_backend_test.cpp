#include "engine/cpu/cpu_backend.h"

#include <gtest/gtest.h>
#include <numeric>
#include <thread>

#include "engine/cpu/test_support.h"

namespace shoal::engine {
namespace {

using cpu::Random;
using cpu::same_bits;

constexpr uint32_t kPageTokens = 16, kHeadDim = 32, kHeads = 8, kKvHeads = 4;

formats::Checkpoint demo() {
  auto checkpoint = formats::Checkpoint::open(SHOAL_SOURCE_DIR "/models/demo/shoal-demo-q8_0.gguf");
  EXPECT_TRUE(checkpoint.has_value());
  return *std::move(checkpoint);
}

CpuBackend backend(CpuBackendOptions options = {}) {
  options.kv.page_tokens = kPageTokens;
  options.kv.page_count = 64;
  if (options.kv_layers.empty()) options.kv_layers = {{kKvHeads, kHeadDim}};
  auto created = CpuBackend::create(std::move(options));
  EXPECT_TRUE(created.has_value());
  return *std::move(created);
}

// The first layer of the demo model, by hand.
class Layer {
 public:
  Layer(CpuBackend& b, const formats::Checkpoint& checkpoint) : b_(b) {
    auto matrix = [&](const char* name) {
      return *b.load_matrix(checkpoint, {.tensor = checkpoint.find(name)});
    };
    auto vector = [&](const char* name) {
      return *b.load_vector(checkpoint, std::array{VectorSource{.tensor = checkpoint.find(name)}});
    };
    embedding_ = *b.load_embedding(checkpoint, *checkpoint.find("token_embd.weight"));
    attention_norm_ = vector("blk.0.attn_norm.weight");
    query_norm_ = vector("blk.0.attn_q_norm.weight");
    key_norm_ = vector("blk.0.attn_k_norm.weight");
    feed_forward_norm_ = vector("blk.0.ffn_norm.weight");
    query_ = matrix("blk.0.attn_q.weight");
    key_ = matrix("blk.0.attn_k.weight");
    value_ = matrix("blk.0.attn_v.weight");
    output_ = matrix("blk.0.attn_output.weight");
    gate_ = matrix("blk.0.ffn_gate.weight");
    up_ = matrix("blk.0.ffn_up.weight");
    down_ = matrix("blk.0.ffn_down.weight");
    for (uint32_t i = 0; i < kHeadDim / 2; ++i) frequencies_.push_back(1.0f / static_cast<float>(1 + i * i));
  }

  std::vector<float> run(const StepView& step) {
    b_.begin(step);
    CpuTensor x = b_.embed(embedding_, step);
    const CpuWeight* qkv[] = {&query_, &key_, &value_};
    std::vector<CpuTensor> parts = b_.linears(b_.rms_norm(x, attention_norm_, 1e-6f), qkv);
    RopeOp rope = {.dimensions = kHeadDim, .inverse_frequencies = frequencies_};
    CpuTensor q = b_.rope(b_.head_norm(parts[0], query_norm_, kHeadDim, 1e-6f), step, rope, kHeadDim);
    CpuTensor k = b_.rope(b_.head_norm(parts[1], key_norm_, kHeadDim, 1e-6f), step, rope, kHeadDim);
    AttentionOp attention = {
        .query_heads = kHeads, .kv_heads = kKvHeads, .head_dim = kHeadDim, .scale = 0.17f};
    CpuTensor mixed = b_.all_reduce(b_.linear(b_.attend(q, k, parts[2], step, attention, nullptr), output_));
    auto [sum, normed] = b_.add_rms_norm(x, mixed, feed_forward_norm_, 1e-6f);
    const CpuWeight* gate_up[] = {&gate_, &up_};
    std::vector<CpuTensor> wide = b_.linears(normed, gate_up);
    CpuTensor y = b_.add(sum, b_.linear(b_.activate_multiply(wide[0], wide[1], Activation{}), down_));
    auto values = b_.output(b_.rows(y, step.output_rows));
    return {values->begin(), values->end()};
  }

 private:
  CpuBackend& b_;
  CpuWeight embedding_, attention_norm_, query_norm_, key_norm_, feed_forward_norm_;
  CpuWeight query_, key_, value_, output_, gate_, up_, down_;
  std::vector<float> frequencies_;
};

// A sequence's next rows: tokens [done, done + count) of a fixed text.
struct Part {
  uint32_t text;
  uint32_t done;
  uint32_t count;
};

int32_t token_of(uint32_t text, uint32_t position) {
  return static_cast<int32_t>((position * 37 + text * 1001 + 5) % 4096);
}

std::vector<float> run_parts(Layer& layer, std::span<const Part> parts) {
  std::vector<int32_t> tokens, positions;
  std::vector<uint32_t> output_rows;
  std::vector<SequenceRows> sequences;
  std::vector<std::vector<uint32_t>> pages(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    for (uint32_t page = 0; page < 8; ++page) pages[i].push_back(parts[i].text + 4 * page);
    sequences.push_back({static_cast<uint32_t>(tokens.size()), parts[i].count, parts[i].done, pages[i]});
    for (uint32_t t = parts[i].done; t < parts[i].done + parts[i].count; ++t) {
      tokens.push_back(token_of(parts[i].text, t));
      positions.push_back(static_cast<int32_t>(t));
      output_rows.push_back(static_cast<uint32_t>(output_rows.size()));
    }
  }
  return layer.run({tokens, positions, sequences, output_rows});
}

std::vector<float> whole_text(Layer& layer, uint32_t text, uint32_t count) {
  Part part = {text, 0, count};
  return run_parts(layer, {&part, 1});
}

TEST(CpuBackend, RowsDoNotDependOnChunksOrOnTheBatch) {
  formats::Checkpoint checkpoint = demo();
  CpuBackend b = backend();
  Layer layer(b, checkpoint);
  std::vector<float> first = whole_text(layer, 0, 100), second = whole_text(layer, 1, 70);
  size_t columns = first.size() / 100;

  // Both texts again, interleaved: a decode row of one next to chunks of the other.
  std::vector<float> first_seen, second_seen;
  uint32_t done_first = 0, done_second = 0;
  for (uint32_t chunk : {33u, 1u, 1u, 40u, 25u}) {
    uint32_t other = done_second < 70 ? std::min(17u, 70 - done_second) : 0;
    std::vector<Part> parts = {{0, done_first, chunk}};
    if (other != 0) parts.insert(parts.begin(), Part{1, done_second, other});
    std::vector<float> rows = run_parts(layer, parts);
    auto border = rows.begin() + static_cast<std::ptrdiff_t>(other * columns);
    second_seen.insert(second_seen.end(), rows.begin(), border);
    first_seen.insert(first_seen.end(), border, rows.end());
    done_first += chunk;
    done_second += other;
  }
  EXPECT_TRUE(same_bits(first, first_seen));
  EXPECT_TRUE(same_bits(second, second_seen));
}

TEST(CpuBackend, StepDoesNotDependOnTheInstructionSetOrThreads) {
  formats::Checkpoint checkpoint = demo();
  CpuBackend portable = backend({.thread_count = 1, .isa = cpu::Isa::portable});
  Layer layer(portable, checkpoint);
  std::vector<float> expected = whole_text(layer, 2, 90);
  for (cpu::Isa isa : cpu::available_isas()) {
    for (unsigned threads : {1u, 3u}) {
      CpuBackend b = backend({.thread_count = threads, .isa = isa});
      Layer other(b, checkpoint);
      EXPECT_TRUE(same_bits(expected, whole_text(other, 2, 90)))
          << cpu::to_string(isa) << " threads " << threads;
    }
  }
}

TEST(CpuBackend, CopiedPageServesAsTheOriginal) {
  formats::Checkpoint checkpoint = demo();
  CpuBackend b = backend();
  Layer layer(b, checkpoint);
  std::vector<float> whole = whole_text(layer, 0, 32);
  // Text 3 gets text 0's first page by copying, then goes on with text 0's tokens.
  b.copy_page(0, 3);
  std::vector<uint32_t> pages = {3, 7};
  std::vector<int32_t> tokens, positions;
  for (uint32_t t = 16; t < 32; ++t) {
    tokens.push_back(token_of(0, t));
    positions.push_back(static_cast<int32_t>(t));
  }
  std::vector<uint32_t> output_rows(16);
  std::iota(output_rows.begin(), output_rows.end(), 0u);
  SequenceRows rows = {0, 16, 16, pages};
  std::vector<float> seen = layer.run({tokens, positions, {&rows, 1}, output_rows});
  EXPECT_TRUE(same_bits(std::span(whole).last(seen.size()), seen));
}

TEST(CpuBackend, RotatesTheFirstValuesOfEachHeadAndTensorsOfOneHead) {
  CpuBackend b = backend();
  std::vector<float> frequencies = {1.0f, 0.3f, 0.01f};
  RopeOp rope = {.dimensions = 6, .inverse_frequencies = frequencies};
  Random random(32);
  std::vector<float> hidden = cpu::normal_values(2 * 20, random);
  int32_t positions[] = {11, 12};
  uint32_t page = 0;
  SequenceRows rows = {0, 2, 11, {&page, 1}};
  StepView step = {{}, positions, {&rows, 1}, {}};
  for (uint32_t head_size : {10u, 20u}) {
    for (RopePairs pairs : {RopePairs::halves, RopePairs::interleaved}) {
      rope.pairs = pairs;
      b.begin(step);
      auto seen = *b.output(b.rope(b.input(step, hidden), step, rope, head_size));
      std::vector<float> expected = hidden;
      for (size_t row = 0; row < 2; ++row) {
        for (size_t head = row * 20; head < row * 20 + 20; head += head_size) {
          for (size_t i = 0; i < 3; ++i) {
            size_t low = head + (pairs == RopePairs::halves ? i : 2 * i);
            size_t high = pairs == RopePairs::halves ? low + 3 : low + 1;
            double angle = positions[row] * double{frequencies[i]}, c = std::cos(angle), s = std::sin(angle);
            expected[low] = static_cast<float>(hidden[low] * c - hidden[high] * s);
            expected[high] = static_cast<float>(hidden[high] * c + hidden[low] * s);
          }
        }
      }
      for (size_t i = 0; i < 40; ++i) EXPECT_NEAR(seen[i], expected[i], 1e-6) << head_size << " " << i;
    }
  }
}

TEST(CpuBackend, EmbedsTheRowsOfTheFile) {
  formats::Checkpoint checkpoint = demo();
  const formats::TensorInfo& info = *checkpoint.find("token_embd.weight");
  CpuBackend b = backend();
  CpuWeight embedding = *b.load_embedding(checkpoint, info);
  std::vector<float> all(4096 * 256);
  ASSERT_TRUE(formats::dequantise(info.type, checkpoint.bytes(info), all).has_value());
  std::vector<int32_t> tokens = {0, 4095, 7}, positions = {0, 1, 2};
  std::vector<uint32_t> pages = {0};
  SequenceRows rows = {0, 3, 0, pages};
  StepView step = {tokens, positions, {&rows, 1}, {}};
  b.begin(step);
  auto seen = *b.output(b.embed(embedding, step));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(same_bits(std::span(all).subspan(static_cast<size_t>(tokens[i]) * 256, 256),
                          seen.subspan(i * 256, 256)));
  }
}

TEST(CpuBackend, CountsItsMemory) {
  formats::Checkpoint checkpoint = demo();
  CpuBackend b = backend();
  EXPECT_EQ(b.memory().weight_bytes, 0u);
  KvLayerShape layer = {kKvHeads, kHeadDim};
  EXPECT_EQ(b.memory().kv_bytes, 64 * *CpuBackend::page_bytes(b.kv(), {&layer, 1}));
  CpuWeight weight = *b.load_matrix(checkpoint, {.tensor = checkpoint.find("blk.0.attn_q.weight")});
  EXPECT_EQ(b.memory().weight_bytes, weight.matrix.bytes());
  EXPECT_GT(weight.matrix.bytes(), 256u * 256);
}

TEST(Isa, NamesAreParsedAndUnknownOnesRefused) {
  for (cpu::Isa isa : {cpu::Isa::portable, cpu::Isa::avx2, cpu::Isa::avx512}) {
    EXPECT_EQ(cpu::parse_isa(cpu::to_string(isa)).value(), isa);
  }
  EXPECT_EQ(cpu::parse_isa("sse9").error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace shoal::engine
