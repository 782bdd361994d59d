#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/expert_plan.h"
#include "engine/cpu/test_support.h"
#include "formats/dequantise.h"

namespace shoal::engine {
namespace {

using cpu::normal_values;
using cpu::Random;
using cpu::same_bits;
using formats::TensorType;

// The feed-forward of a layer: packed for rank `rank` of `ranks`, and as plain numbers.
struct Mixture {
  uint32_t experts, hidden, width;
  ExpertWeights<CpuWeight> weights;
  std::vector<std::vector<float>> gate, up, down;  // per expert, whole
};

CpuWeight vector_of(std::vector<float> values) {
  CpuWeight weight;
  weight.vector = std::move(values);
  return weight;
}

std::vector<float> add_expert(CpuWeight& stack, TensorType type, uint32_t rows, uint32_t columns,
                              Random& random) {
  Bytes file = cpu::random_weights(type, rows, columns, random);
  std::vector<float> values(size_t{rows} * columns);
  EXPECT_TRUE(formats::dequantise(type, file, values).has_value());
  stack.stack.push_back(cpu::pack(type, file, rows, columns));
  return values;
}

Mixture random_mixture(TensorType type, uint32_t experts, uint32_t hidden, uint32_t width, bool biased) {
  Random random(31);
  Mixture m;
  m.experts = experts;
  m.hidden = hidden;
  m.width = width;
  for (uint32_t e = 0; e < experts; ++e) {
    m.gate.push_back(add_expert(m.weights.gate, type, width, hidden, random));
    m.up.push_back(add_expert(m.weights.up, type, width, hidden, random));
    m.down.push_back(add_expert(m.weights.down, type, hidden, width, random));
  }
  if (biased) {
    m.weights.gate_bias = vector_of(normal_values(size_t{experts} * width, random));
    m.weights.up_bias = vector_of(normal_values(size_t{experts} * width, random));
    m.weights.down_bias = vector_of(normal_values(size_t{experts} * hidden, random));
  }
  return m;
}

CpuRouting random_routing(uint32_t rows, uint32_t used, uint32_t experts, Random& random) {
  CpuRouting routing;
  routing.used = used;
  for (uint32_t row = 0; row < rows; ++row) {
    std::vector<uint32_t> chosen;
    while (chosen.size() < used) {
      auto expert = static_cast<uint32_t>(random() % experts);
      if (row % 3 == 0 && expert == 2) continue;  // so that counts differ
      if (std::ranges::find(chosen, expert) == chosen.end()) chosen.push_back(expert);
    }
    routing.experts.insert(routing.experts.end(), chosen.begin(), chosen.end());
    for (uint32_t i = 0; i < used; ++i) routing.weights.push_back(std::abs(cpu::normal(random)));
  }
  return routing;
}

CpuRouting routing_of(const CpuRouting& all, std::span<const uint32_t> rows) {
  CpuRouting routing;
  routing.used = all.used;
  for (uint32_t row : rows) {
    auto first = static_cast<std::ptrdiff_t>(row * all.used), end = first + all.used;
    routing.experts.insert(routing.experts.end(), all.experts.begin() + first, all.experts.begin() + end);
    routing.weights.insert(routing.weights.end(), all.weights.begin() + first, all.weights.begin() + end);
  }
  return routing;
}

std::vector<float> run(const Mixture& m, std::span<const float> x, const CpuRouting& routing,
                       CpuBackendOptions options = {}) {
  auto b = CpuBackend::create(std::move(options));
  EXPECT_TRUE(b.has_value());
  std::vector<int32_t> positions(x.size() / m.hidden);
  SequenceRows sequence = {0, static_cast<uint32_t>(positions.size()), 0, {}};
  StepView step = {positions, positions, {&sequence, 1}, {}};
  b->begin(step);
  auto seen = *b->output(b->experts(b->input(step, x), routing, m.weights, Activation{}));
  return {seen.begin(), seen.end()};
}

double dot(std::span<const float> matrix, size_t row, std::span<const double> x) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += matrix[row * x.size() + i] * x[i];
  return sum;
}

std::vector<double> exact_row(const Mixture& m, std::span<const float> x, std::span<const uint32_t> experts,
                              std::span<const float> weights) {
  std::vector<double> output(m.hidden), input(x.begin(), x.end());
  auto bias = [](const std::optional<CpuWeight>& values, size_t index) {
    return values ? double{values->vector[index]} : 0;
  };
  for (size_t i = 0; i < experts.size(); ++i) {
    const size_t e = experts[i];
    std::vector<double> inner(m.width);
    for (size_t f = 0; f < m.width; ++f) {
      double gate = dot(m.gate[e], f, input) + bias(m.weights.gate_bias, e * m.width + f);
      double up = dot(m.up[e], f, input) + bias(m.weights.up_bias, e * m.width + f);
      inner[f] = gate / (1 + std::exp(-gate)) * up;
    }
    for (size_t d = 0; d < m.hidden; ++d)
      output[d] += weights[i] * (dot(m.down[e], d, inner) + bias(m.weights.down_bias, e * m.hidden + d));
  }
  return output;
}

double root_mean_square(std::span<const double> values) {
  double squares = 0;
  for (double value : values) squares += value * value;
  return std::sqrt(squares / static_cast<double>(values.size()));
}

TEST(Experts, AgreeWithDoubleArithmetic) {
  struct Case {
    TensorType type;
    uint32_t hidden, width;
    bool biased;
    double tolerance;  // of the root mean square: int8 activations round
  };
  for (const Case& c :
       {Case{TensorType::f32, 40, 24, false, 2e-5}, Case{TensorType::f32, 33, 17, true, 2e-5},
        Case{TensorType::bf16, 64, 48, true, 2e-5}, Case{TensorType::q8_0, 64, 96, false, 0.25},
        Case{TensorType::q4_k, 256, 256, true, 0.25}}) {
    Mixture m = random_mixture(c.type, 6, c.hidden, c.width, c.biased);
    Random random(32);
    std::vector<float> x = normal_values(size_t{20} * c.hidden, random);
    CpuRouting routing = random_routing(20, 3, 6, random);
    std::vector<float> seen = run(m, x, routing);
    for (size_t row = 0; row < 20; ++row) {
      std::vector<double> expected = exact_row(m, std::span(x).subspan(row * c.hidden, c.hidden),
                                               std::span(routing.experts).subspan(row * 3, 3),
                                               std::span(routing.weights).subspan(row * 3, 3));
      const double near = c.tolerance * root_mean_square(expected);
      ASSERT_GT(near, 0);
      for (size_t d = 0; d < c.hidden; ++d)
        ASSERT_NEAR(seen[row * c.hidden + d], expected[d], near) << "row " << row << " value " << d;
    }
  }
}

TEST(Experts, EveryInstructionSetAndThreadCountGivesPortableBits) {
  for (TensorType type : {TensorType::f32, TensorType::bf16, TensorType::q8_0, TensorType::q4_k}) {
    Mixture m = random_mixture(type, 8, 256, 256, type == TensorType::f32);
    Random random(33);
    std::vector<float> x = normal_values(size_t{33} * 256, random);
    CpuRouting routing = random_routing(33, 4, 8, random);
    std::vector<float> expected = run(m, x, routing, {.thread_count = 1, .isa = cpu::Isa::portable});
    EXPECT_TRUE(same_bits(expected, run(m, x, routing, {.thread_count = 5, .isa = cpu::Isa::portable})));
    for (const cpu::Kernels* kernels : cpu::fast_kernels()) {
      EXPECT_TRUE(same_bits(expected, run(m, x, routing, {.thread_count = 3, .isa = kernels->isa})))
          << to_string(kernels->isa);
    }
  }
}

TEST(Experts, ARowDependsNeitherOnItsNeighboursNorOnTheOrderOfItsExperts) {
  for (TensorType type : {TensorType::f32, TensorType::q8_0}) {
    Mixture m = random_mixture(type, 8, 96, 64, true);
    Random random(34);
    std::vector<float> x = normal_values(size_t{50} * 96, random);
    CpuRouting routing = random_routing(50, 4, 8, random);
    std::vector<float> all = run(m, x, routing);
    std::vector<uint32_t> rows = {49, 3, 17};
    std::vector<float> some, expected;
    for (uint32_t row : rows) {
      auto from = std::span(x).subspan(size_t{row} * 96, 96),
           wanted = std::span(all).subspan(size_t{row} * 96, 96);
      some.insert(some.end(), from.begin(), from.end());
      expected.insert(expected.end(), wanted.begin(), wanted.end());
    }
    CpuRouting chosen = routing_of(routing, rows);
    EXPECT_TRUE(same_bits(expected, run(m, some, chosen)));
    for (size_t row = 0; row < rows.size(); ++row) {
      std::reverse(chosen.experts.begin() + row * 4, chosen.experts.begin() + row * 4 + 4);
      std::reverse(chosen.weights.begin() + row * 4, chosen.weights.begin() + row * 4 + 4);
    }
    EXPECT_TRUE(same_bits(expected, run(m, some, chosen)));
  }
}

// Rows find some of their experts here and some on other ranks, or none.
TEST(Experts, RanksWithExpertsOfTheirOwnSumToTheWhole) {
  Mixture whole = random_mixture(TensorType::q8_0, 5, 64, 64, true);
  Random random(35);
  std::vector<float> x = normal_values(size_t{10} * 64, random);
  CpuRouting routing = random_routing(10, 2, 5, random);
  std::vector<float> expected = run(whole, x, routing), sum(expected.size());
  for (const auto& [first, end] : {std::pair(0u, 1u), {1u, 4u}, {4u, 5u}}) {
    Mixture share = whole;
    share.weights.first_expert = first;
    for (CpuWeight* stack : {&share.weights.gate, &share.weights.up, &share.weights.down})
      stack->stack = {stack->stack.begin() + first, stack->stack.begin() + end};
    for (auto* bias : {&share.weights.gate_bias, &share.weights.up_bias, &share.weights.down_bias})
      (*bias)->vector = {(*bias)->vector.begin() + 64 * first, (*bias)->vector.begin() + 64 * end};
    std::vector<float> part = run(share, x, routing);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  for (size_t i = 0; i < sum.size(); ++i)
    ASSERT_NEAR(sum[i], expected[i], 1e-4 + 1e-5 * std::abs(expected[i]));
}

TEST(Experts, HostileRowsStayAlone) {
  Mixture m = random_mixture(TensorType::q8_0, 6, 64, 64, true);
  Random random(36);
  std::vector<float> x = normal_values(size_t{12} * 64, random);
  CpuRouting routing = random_routing(12, 2, 6, random);
  std::vector<float> expected = run(m, x, routing);
  for (float value : {NAN, INFINITY, -INFINITY, 3e38f}) {
    std::vector<float> bad = x;
    std::fill_n(bad.begin() + 64, 64, value);
    std::vector<float> seen = run(m, bad, routing);
    for (size_t row = 0; row < 12; ++row) {
      if (row == 1) continue;
      EXPECT_TRUE(
          same_bits(std::span(expected).subspan(row * 64, 64), std::span(seen).subspan(row * 64, 64)));
    }
  }
}

TEST(ExpertPlan, NumbersSlotsByExpertThenRowAndCutsThemWithinALimit) {
  std::vector<uint32_t> experts = {3, 0, 3, 1, 0, 3};  // rows 0, 1, 2 with two each
  cpu::ExpertPlan plan(experts, 2, {0, 5});
  EXPECT_EQ(std::vector<uint32_t>(plan.rows(), plan.rows() + 6), (std::vector<uint32_t>{0, 2, 1, 0, 1, 2}));
  EXPECT_TRUE(std::ranges::equal(plan.slots(0), std::vector<uint32_t>{0, 3}));
  EXPECT_TRUE(std::ranges::equal(plan.places(0), std::vector<uint32_t>{1, 0}));
  EXPECT_TRUE(std::ranges::equal(plan.slots(2), std::vector<uint32_t>{1, 5}));
  EXPECT_TRUE(std::ranges::equal(plan.places(2), std::vector<uint32_t>{0, 1}));
  for (uint32_t limit : {1u, 2u, 3u, 4u, 100u}) {
    uint32_t next = 0;
    while (next < plan.slot_count()) {
      auto parts = plan.parts(next, limit);
      ASSERT_FALSE(parts.empty());
      EXPECT_EQ(parts.front().first, next);
      EXPECT_LE(parts.back().end - next, limit);
      for (const auto& part : parts) {
        EXPECT_EQ(part.first, next);
        EXPECT_LT(part.first, part.end);
        EXPECT_EQ(part.expert, part.first < 2 ? 0u : part.first < 3 ? 1u : 3u);
        next = part.end;
      }
    }
    EXPECT_EQ(next, 6u);
    EXPECT_TRUE(plan.parts(6, limit).empty());
  }
}

}  // namespace
}  // namespace shoal::engine
