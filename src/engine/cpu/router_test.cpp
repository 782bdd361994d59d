#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <numeric>
#include <set>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine {
namespace {

using cpu::normal_values;
using cpu::Random;
using cpu::same_bits;
using Score = RouterOp::Score;
using GroupScore = RouterOp::GroupScore;

CpuRouting route(const RouterOp& op, std::span<const float> logits, const std::vector<float>& bias = {},
                 CpuBackendOptions options = {}) {
  auto b = CpuBackend::create(std::move(options));
  EXPECT_TRUE(b.has_value());
  std::vector<int32_t> positions(logits.size() / op.expert_count);
  SequenceRows sequence = {0, static_cast<uint32_t>(positions.size()), 0, {}};
  StepView step = {positions, positions, {&sequence, 1}, {}};
  b->begin(step);
  CpuWeight weight;
  weight.vector = bias;
  return b->route(b->input(step, logits), bias.empty() ? nullptr : &weight, op);
}

const RouterOp kMixtral = {.expert_count = 8, .used = 2, .normalise = true};
const RouterOp kDeepseekV2 = {
    .expert_count = 24, .used = 5, .group_count = 4, .used_groups = 2, .scale = 16.0f};
const RouterOp kDeepseekV3 = {.score = Score::sigmoid,
                              .expert_count = 40,
                              .used = 6,
                              .group_count = 5,
                              .used_groups = 3,
                              .group_score = GroupScore::top_two_sum,
                              .normalise = true,
                              .normalise_epsilon = 1e-20f,
                              .scale = 2.5f};
const RouterOp kQwen3Next = {.expert_count = 512, .used = 10, .normalise = true};

// One row in double arithmetic: expert -> weight.
std::vector<std::pair<uint32_t, double>> exact(const RouterOp& op, std::span<const float> logits,
                                               const std::vector<float>& bias) {
  std::vector<double> scores;
  double largest = *std::ranges::max_element(logits), sum = 0;
  for (double x : logits)
    scores.push_back(op.score == Score::softmax ? std::exp(x - largest) : 1 / (1 + std::exp(-x)));
  for (double score : scores) sum += score;
  if (op.score == Score::softmax) {
    for (double& score : scores) score /= sum;
  }
  std::vector<double> keys = scores;
  for (size_t i = 0; i < bias.size(); ++i) keys[i] += bias[i];
  auto best_of = [](const std::vector<double>& values, size_t count) {
    std::vector<uint32_t> order(values.size());
    std::iota(order.begin(), order.end(), 0u);
    std::ranges::sort(order, [&](uint32_t a, uint32_t b) {
      return values[a] > values[b] || (values[a] == values[b] && a < b);
    });
    order.resize(count);
    return order;
  };
  const size_t size = op.expert_count / op.group_count;
  std::vector<double> groups;
  for (uint32_t group = 0; group < op.group_count; ++group) {
    std::vector<double> members(keys.begin() + static_cast<std::ptrdiff_t>(group * size),
                                keys.begin() + static_cast<std::ptrdiff_t>((group + 1) * size));
    std::ranges::sort(members, std::greater());
    groups.push_back(members[0] + (op.group_score == GroupScore::top_two_sum && size > 1 ? members[1] : 0));
  }
  std::vector<uint32_t> open = best_of(groups, op.used_groups);
  for (size_t expert = 0; expert < keys.size(); ++expert) {
    if (std::ranges::find(open, expert / size) == open.end()) keys[expert] = -INFINITY;
  }
  std::vector<uint32_t> chosen = best_of(keys, op.used);
  double chosen_sum = 0;
  for (uint32_t expert : chosen) chosen_sum += scores[expert];
  std::vector<std::pair<uint32_t, double>> result;
  for (uint32_t expert : chosen) {
    double weight = op.normalise ? scores[expert] / (chosen_sum + op.normalise_epsilon) : scores[expert];
    result.emplace_back(expert, weight * op.scale);
  }
  return result;
}

TEST(Router, AgreesWithDoubleArithmeticForEveryFamily) {
  Random random(21);
  constexpr uint32_t kRows = 200;
  for (const RouterOp& op : {kMixtral, kDeepseekV2, kDeepseekV3, kQwen3Next}) {
    std::vector<float> logits = normal_values(size_t{kRows} * op.expert_count, random), bias;
    for (float& logit : logits) logit *= 3;
    if (op.score == Score::sigmoid) bias = normal_values(op.expert_count, random);
    CpuRouting seen = route(op, logits, bias);
    ASSERT_EQ(seen.experts.size(), size_t{kRows} * op.used);
    for (size_t row = 0; row < kRows; ++row) {
      auto expected = exact(op, std::span(logits).subspan(row * op.expert_count, op.expert_count), bias);
      for (size_t i = 0; i < op.used; ++i) {
        ASSERT_EQ(seen.experts[row * op.used + i], expected[i].first) << "row " << row << " place " << i;
        ASSERT_NEAR(seen.weights[row * op.used + i], expected[i].second, 2e-6 * expected[i].second + 1e-12);
      }
    }
  }
}

TEST(Router, SoftmaxOverTheChosenIsSoftmaxOverAllNormalised) {
  RouterOp op = {.expert_count = 32, .used = 4, .normalise = true};
  Random random(22);
  std::vector<float> logits = normal_values(32, random);
  logits[3] = 80;  // far above the rest, whose own weights must stay right
  CpuRouting seen = route(op, logits);
  double sum = 0;
  for (uint32_t expert : seen.experts) sum += std::exp(double{logits[expert]} - 80);
  for (size_t i = 0; i < 4; ++i) {
    double expected = std::exp(double{logits[seen.experts[i]]} - 80) / sum;
    EXPECT_NEAR(seen.weights[i], expected, 1e-5 * expected);
  }
}

TEST(Router, TiesGoToTheLowerIndex) {
  std::vector<float> logits = {1, 2, 0, 2, 2, 1, 2, 0};
  CpuRouting seen = route(kMixtral, logits);
  EXPECT_EQ(seen.experts, (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(seen.weights[0], seen.weights[1]);
  // Groups too: all equal, so the first groups and their first experts.
  std::vector<float> zeros(40);
  EXPECT_EQ(route(kDeepseekV3, zeros).experts, (std::vector<uint32_t>{0, 1, 2, 3, 4, 5}));
}

TEST(Router, TheBiasChoosesButDoesNotWeigh) {
  RouterOp op = {.score = Score::sigmoid, .expert_count = 4, .used = 1};
  std::vector<float> logits = {3, 0, 0, 0};
  CpuRouting seen = route(op, logits, {0, 0, 5, 0});
  EXPECT_EQ(seen.experts, std::vector<uint32_t>{2});
  EXPECT_EQ(seen.weights, std::vector<float>{0.5f});
}

TEST(Router, AGroupThatIsNotChosenCannotWinEvenWithNegativeKeys) {
  RouterOp op = {.score = Score::sigmoid,
                 .expert_count = 4,
                 .used = 2,
                 .group_count = 2,
                 .used_groups = 1,
                 .group_score = GroupScore::top_two_sum};
  std::vector<float> logits = {0, 0, 0, 0};
  EXPECT_EQ(route(op, logits, {-1, -9, -2, -3}).experts, (std::vector<uint32_t>{2, 3}));
}

TEST(Router, EveryInstructionSetAndThreadCountGivesPortableBits) {
  Random random(23);
  for (const cpu::Kernels* kernels : cpu::fast_kernels()) {
    for (RouterOp op : {kMixtral, kDeepseekV2, kDeepseekV3, kQwen3Next}) {
      std::vector<float> logits = cpu::awkward_values(size_t{100} * op.expert_count, random), bias;
      if (op.score == Score::sigmoid) bias = normal_values(op.expert_count, random);
      CpuRouting expected = route(op, logits, bias, {.thread_count = 1, .isa = cpu::Isa::portable});
      CpuRouting seen = route(op, logits, bias, {.thread_count = 4, .isa = kernels->isa});
      EXPECT_EQ(expected.experts, seen.experts);
      EXPECT_TRUE(same_bits(expected.weights, seen.weights)) << to_string(kernels->isa);
    }
  }
}

TEST(Router, RowsDoNotDependOnTheirNeighbours) {
  Random random(24);
  std::vector<float> logits = normal_values(size_t{50} * kDeepseekV3.expert_count, random);
  CpuRouting all = route(kDeepseekV3, logits);
  for (size_t row : {0u, 7u, 49u}) {
    CpuRouting one = route(kDeepseekV3, std::span(logits).subspan(row * 40, 40));
    EXPECT_TRUE(std::ranges::equal(one.experts, std::span(all.experts).subspan(row * 6, 6)));
    EXPECT_TRUE(same_bits(one.weights, std::span(all.weights).subspan(row * 6, 6)));
  }
}

TEST(Router, HostileLogitsChooseDifferentExpertsOfTheModel) {
  Random random(25);
  const float awkward[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f};
  for (RouterOp op : {kMixtral, kDeepseekV2, kDeepseekV3, kQwen3Next}) {
    for (bool biased : {false, true}) {
      std::vector<float> logits = normal_values(size_t{60} * op.expert_count, random), bias;
      for (size_t row = 0; row < 60; ++row) {
        for (size_t i = 0; i < op.expert_count; ++i) {
          if (random() % 59 < row) logits[row * op.expert_count + i] = awkward[random() % 7];
        }
      }
      std::fill_n(logits.begin(), op.expert_count, NAN);
      if (biased) bias = std::vector<float>(op.expert_count, NAN);
      CpuRouting seen = route(op, logits, bias);
      for (size_t row = 0; row < 60; ++row) {
        auto chosen = std::span(seen.experts).subspan(row * op.used, op.used);
        EXPECT_EQ(std::set<uint32_t>(chosen.begin(), chosen.end()).size(), op.used);
        EXPECT_LT(*std::ranges::max_element(chosen), op.expert_count);
      }
      EXPECT_TRUE(std::isnan(seen.weights[0]));  // and a row of NaN is not passed off as a result
    }
  }
}

}  // namespace
}  // namespace shoal::engine
