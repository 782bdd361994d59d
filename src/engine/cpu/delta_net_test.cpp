#include <cmath>
#include <gtest/gtest.h>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine {
namespace {

using cpu::normal_values;
using cpu::Random;
using cpu::same_bits;

// Random inputs of one layer: every row of every sequence, and the weights.
struct Layer {
  DeltaNetOp op;
  uint32_t tokens = 0;
  std::vector<float> queries, keys, values, decay_input, rate_input;
  CpuWeight taps, decay_bias, decay;

  uint32_t key_columns() const { return op.key_heads * op.key_dim; }
  uint32_t value_columns() const { return op.value_heads * op.value_dim; }
  uint64_t state_floats() const {
    return uint64_t{op.kernel - 1} * op.channels() + uint64_t{op.key_dim} * value_columns();
  }
};

Layer random_layer(DeltaNetOp op, uint32_t tokens, uint64_t seed) {
  Random random(seed);
  Layer layer;
  layer.op = op;
  layer.tokens = tokens;
  layer.queries = normal_values(size_t{tokens} * layer.key_columns(), random);
  layer.keys = normal_values(size_t{tokens} * layer.key_columns(), random);
  layer.values = normal_values(size_t{tokens} * layer.value_columns(), random);
  layer.decay_input = normal_values(size_t{tokens} * op.value_heads, random);
  layer.rate_input = normal_values(size_t{tokens} * op.value_heads, random);
  layer.taps.vector = normal_values(size_t{op.channels()} * op.kernel, random);
  layer.decay_bias.vector = normal_values(op.value_heads, random);
  for (uint32_t head = 0; head < op.value_heads; ++head)
    layer.decay.vector.push_back(-std::exp(cpu::normal(random)));
  return layer;
}

DeltaNetOp op_of(uint32_t key_heads, uint32_t value_heads, uint32_t key_dim, uint32_t value_dim,
                 uint32_t kernel, bool tiled = false) {
  return {.key_heads = key_heads,
          .value_heads = value_heads,
          .key_dim = key_dim,
          .value_dim = value_dim,
          .kernel = kernel,
          .tiled = tiled};
}

const DeltaNetOp kOps[] = {
    op_of(2, 4, 16, 16, 4),  op_of(2, 4, 16, 16, 4, true), op_of(1, 1, 5, 20, 2),    op_of(3, 9, 7, 3, 1),
    op_of(2, 2, 33, 100, 3), op_of(1, 3, 24, 64, 4, true), op_of(2, 4, 128, 128, 4), op_of(1, 1, 8, 8, 50),
};

CpuBackend backend_for(const Layer& layer, CpuBackendOptions options = {}) {
  options.kv.page_tokens = 16;
  options.kv.state_slots = 4;
  options.kv_layers = {{.state_floats = layer.state_floats()}};
  auto created = CpuBackend::create(std::move(options));
  EXPECT_TRUE(created.has_value());
  return *std::move(created);
}

// Tokens [first, first + count) of the layer's, as those of a sequence in `slot` that started at token
// `start`.
struct Piece {
  uint32_t slot;
  uint32_t start;
  uint32_t first;
  uint32_t count;
};

std::vector<float> run(CpuBackend& b, const Layer& layer, std::span<const Piece> pieces) {
  std::vector<int32_t> positions;
  std::vector<SequenceRows> sequences;
  for (const Piece& piece : pieces) {
    sequences.push_back({.first_row = static_cast<uint32_t>(positions.size()),
                         .row_count = piece.count,
                         .context_tokens = piece.first - piece.start,
                         .pages = {},
                         .state_slot = piece.slot});
    for (uint32_t t = 0; t < piece.count; ++t)
      positions.push_back(static_cast<int32_t>(piece.first - piece.start + t));
  }
  StepView step = {positions, positions, sequences, {}};
  b.begin(step);
  auto input = [&](const std::vector<float>& all, uint32_t columns) {
    std::vector<float> rows;
    for (const Piece& piece : pieces) {
      auto from = all.begin() + static_cast<std::ptrdiff_t>(piece.first) * columns;
      rows.insert(rows.end(), from, from + static_cast<std::ptrdiff_t>(piece.count) * columns);
    }
    return b.input(step, rows);
  };
  CpuTensor result =
      b.delta_net(input(layer.queries, layer.key_columns()), input(layer.keys, layer.key_columns()),
                  input(layer.values, layer.value_columns()), input(layer.decay_input, layer.op.value_heads),
                  input(layer.rate_input, layer.op.value_heads), layer.taps, layer.decay_bias, layer.decay,
                  step, layer.op);
  auto seen = *b.output(result);
  return {seen.begin(), seen.end()};
}

std::vector<float> run_whole(CpuBackend& b, const Layer& layer) {
  Piece piece = {0, 0, 0, layer.tokens};
  return run(b, layer, {&piece, 1});
}

// Channel `c` of the convolved input at token t, after silu.
double convolved(const Layer& layer, uint32_t t, uint32_t c) {
  auto input = [&](uint32_t token) -> double {
    uint32_t keys = layer.key_columns();
    if (c < keys) return layer.queries[size_t{token} * keys + c];
    if (c < 2 * keys) return layer.keys[size_t{token} * keys + c - keys];
    return layer.values[size_t{token} * layer.value_columns() + c - 2 * keys];
  };
  double sum = 0;
  for (uint32_t i = 0; i < layer.op.kernel; ++i) {
    int64_t token = int64_t{t} - (layer.op.kernel - 1) + i;
    if (token >= 0)
      sum += layer.taps.vector[size_t{c} * layer.op.kernel + i] * input(static_cast<uint32_t>(token));
  }
  return sum / (1 + std::exp(-sum));
}

std::vector<double> normalised(const Layer& layer, uint32_t t, uint32_t first_channel) {
  std::vector<double> head;
  double squares = 0;
  for (uint32_t i = 0; i < layer.op.key_dim; ++i) {
    head.push_back(convolved(layer, t, first_channel + i));
    squares += head.back() * head.back();
  }
  for (double& value : head) value /= std::sqrt(squares + 1e-6);
  return head;
}

// The recurrence as the paper writes it: [tokens, value_heads * value_dim].
std::vector<double> exact(const Layer& layer) {
  const DeltaNetOp& op = layer.op;
  std::vector<double> output(size_t{layer.tokens} * layer.value_columns());
  for (uint32_t head = 0; head < op.value_heads; ++head) {
    uint32_t key_head = op.tiled ? head % op.key_heads : head / (op.value_heads / op.key_heads);
    std::vector<std::vector<double>> state(op.key_dim, std::vector<double>(op.value_dim));
    for (uint32_t t = 0; t < layer.tokens; ++t) {
      std::vector<double> query = normalised(layer, t, key_head * op.key_dim);
      std::vector<double> key = normalised(layer, t, layer.key_columns() + key_head * op.key_dim);
      double a = double{layer.decay_input[size_t{t} * op.value_heads + head]} + layer.decay_bias.vector[head];
      double decay = std::exp(layer.decay.vector[head] * std::log1p(std::exp(a)));
      double rate = 1 / (1 + std::exp(-double{layer.rate_input[size_t{t} * op.value_heads + head]}));
      for (uint32_t v = 0; v < op.value_dim; ++v) {
        double recalled = 0, sum = 0;
        for (uint32_t k = 0; k < op.key_dim; ++k) recalled += (state[k][v] *= decay) * key[k];
        double value = convolved(layer, t, 2 * layer.key_columns() + head * op.value_dim + v);
        for (uint32_t k = 0; k < op.key_dim; ++k) {
          state[k][v] += key[k] * (value - recalled) * rate;
          sum += state[k][v] * query[k] / std::sqrt(static_cast<double>(op.key_dim));
        }
        output[size_t{t} * layer.value_columns() + head * op.value_dim + v] = sum;
      }
    }
  }
  return output;
}

TEST(DeltaNet, AgreesWithDoubleArithmetic) {
  for (const DeltaNetOp& op : kOps) {
    Layer layer = random_layer(op, 40, op.key_dim * 1000 + op.value_dim);
    CpuBackend b = backend_for(layer);
    std::vector<float> seen = run_whole(b, layer);
    std::vector<double> expected = exact(layer);
    ASSERT_EQ(seen.size(), expected.size());
    double squares = 0;
    for (double value : expected) squares += value * value;
    const double root_mean_square = std::sqrt(squares / static_cast<double>(seen.size()));
    ASSERT_GT(root_mean_square, 1e-3);
    for (size_t i = 0; i < seen.size(); ++i) {
      ASSERT_NEAR(seen[i], expected[i], 1e-5 * root_mean_square)
          << "value " << i << " key_dim " << op.key_dim;
    }
  }
}

TEST(DeltaNet, EveryInstructionSetGivesPortableBits) {
  for (const cpu::Kernels* kernels : cpu::fast_kernels()) {
    for (const DeltaNetOp& op : kOps) {
      Layer layer = random_layer(op, 37, op.value_dim);
      CpuBackend portable = backend_for(layer, {.isa = cpu::Isa::portable});
      CpuBackend fast = backend_for(layer, {.isa = kernels->isa});
      EXPECT_TRUE(same_bits(run_whole(portable, layer), run_whole(fast, layer)))
          << to_string(kernels->isa) << " value_dim " << op.value_dim;
    }
  }
}

TEST(DeltaNet, RowsDoNotDependOnChunksOrTheBatchOrThreads) {
  for (const DeltaNetOp& op : {kOps[1], kOps[4], kOps[6]}) {
    Layer layer = random_layer(op, 60, 5);
    CpuBackend one = backend_for(layer, {.thread_count = 1}), four = backend_for(layer, {.thread_count = 4});
    std::vector<float> expected = run_whole(one, layer), seen, beside;
    // Chunks of the sequence in slot 2, with another text in slot 1 before or after it.
    const uint32_t columns = layer.value_columns();
    uint32_t done = 0, other = 0;
    for (uint32_t chunk : {1u, 1u, 2u, 30u, 1u, 25u}) {
      Piece mine = {2, 0, done, chunk}, its = {1, 20, 20 + other, 5};
      bool first = chunk % 2 == 0;
      std::vector<Piece> pieces = first ? std::vector{mine, its} : std::vector{its, mine};
      std::vector<float> rows = run(four, layer, pieces);
      auto split = rows.begin() + static_cast<std::ptrdiff_t>(first ? chunk : 5) * columns;
      seen.insert(seen.end(), first ? rows.begin() : split, first ? split : rows.end());
      beside.insert(beside.end(), first ? split : rows.begin(), first ? rows.end() : split);
      done += chunk;
      other += 5;
    }
    EXPECT_TRUE(same_bits(expected, seen));
    Piece alone = {3, 20, 20, 30};
    EXPECT_TRUE(same_bits(run(one, layer, {&alone, 1}), beside));
  }
}

TEST(DeltaNet, ASequenceThatStartsSeesNothingOfItsSlotsPast) {
  Layer layer = random_layer(kOps[0], 20, 6);
  CpuBackend b = backend_for(layer);
  std::vector<float> first = run_whole(b, layer);
  Layer poison = random_layer(kOps[0], 20, 6);
  for (float& value : poison.values) value = NAN;
  for (float& value : poison.keys) value = INFINITY;
  run_whole(b, poison);
  EXPECT_TRUE(same_bits(first, run_whole(b, layer)));
}

TEST(DeltaNet, HostileValuesStayWithinTheirSequence) {
  Layer layer = random_layer(kOps[2], 30, 7);
  CpuBackend b = backend_for(layer);
  Piece clean = {0, 10, 10, 20};
  std::vector<float> expected = run(b, layer, {&clean, 1});
  const float awkward[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, 0.0f};
  for (auto input :
       {&Layer::queries, &Layer::keys, &Layer::values, &Layer::decay_input, &Layer::rate_input}) {
    for (float value : awkward) {
      Layer bad = random_layer(kOps[2], 30, 7);
      std::fill_n((bad.*input).begin(), (bad.*input).size() / 3, value);  // the first 10 tokens
      std::vector<Piece> pieces = {{3, 0, 0, 10}, clean};
      std::vector<float> seen = run(b, bad, pieces);
      EXPECT_TRUE(same_bits(expected, std::span(seen).subspan(size_t{10} * layer.value_columns()))) << value;
    }
  }
}

TEST(DeltaNet, GatesAreRightFromOneEndToTheOther) {
  std::vector<float> inputs;
  for (int i = -4000; i <= 4000; ++i) inputs.push_back(static_cast<float>(i) * 0.025f);
  const auto count = static_cast<uint32_t>(inputs.size());
  std::vector<float> zeros(count), factors(count, -0.5f), decay(count), rate(count);
  cpu::reference_kernels().delta_gates(
      {count, inputs.data(), zeros.data(), factors.data(), inputs.data(), decay.data(), rate.data()});
  for (uint32_t i = 0; i < count; ++i) {
    double x = inputs[i], softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    ASSERT_NEAR(decay[i], std::exp(-0.5 * softplus), 4e-7 * std::exp(-0.5 * softplus) * (1 + softplus)) << x;
    double sigmoid = 1 / (1 + std::exp(-x));
    ASSERT_NEAR(rate[i], sigmoid, 4e-7 * sigmoid + 1e-38) << x;
  }
}

TEST(RecurrentStates, AreCountedAndNeedSlots) {
  Layer layer = random_layer(kOps[6], 1, 8);
  EXPECT_GE(backend_for(layer).memory().kv_bytes, 4 * layer.state_floats() * sizeof(float));
  KvConfig kv = {.page_tokens = 16};
  auto none = CpuBackend::create({.kv = kv, .kv_layers = {{.state_floats = 64}}});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::invalid_argument);
  kv.state_slots = 1000;
  for (uint64_t floats : {UINT64_MAX, UINT64_MAX / 8, UINT64_MAX / 64}) {
    auto huge = CpuBackend::create({.kv = kv, .kv_layers = {{.state_floats = floats}}});
    ASSERT_FALSE(huge.has_value());
    EXPECT_EQ(huge.error().code, ErrorCode::out_of_memory);
  }
}

}  // namespace
}  // namespace shoal::engine
