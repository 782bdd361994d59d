#include "runtime/sampling.h"

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>
#include <map>
#include <random>

#include "runtime/portable_math.h"
#include "runtime/random.h"

namespace shoal::runtime {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits whose softmax is `probabilities`.
std::vector<float> logits_of(const std::vector<float>& probabilities) {
  std::vector<float> logits;
  for (float p : probabilities) logits.push_back(std::log(p));
  return logits;
}

std::map<int32_t, int> draws(std::span<const float> logits, SamplingParameters parameters, int count,
                             const TokenHistory& history = {}) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < count; ++i)
    counts[sample(logits, parameters, history, static_cast<uint64_t>(i)).token] += 1;
  return counts;
}

// Pearson's statistic against the expected probabilities.
double chi_square(const std::map<int32_t, int>& counts, const std::vector<double>& expected, int total) {
  double sum = 0;
  for (size_t token = 0; token < expected.size(); ++token) {
    const auto found = counts.find(static_cast<int32_t>(token));
    const double seen = found == counts.end() ? 0 : found->second;
    const double mean = expected[token] * total;
    if (mean > 0) sum += (seen - mean) * (seen - mean) / mean;
  }
  return sum;
}

TEST(Philox, MatchesThePublishedVectors) {
  EXPECT_THAT(philox({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PortableMath, ExponentialAndLogarithmAreClose) {
  for (float x = 0; x > -86.5f; x -= 0.0137f) {
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_NEAR(exp_of_negative(x) / exact, 1, 3e-7) << x;
  }
  EXPECT_EQ(exp_of_negative(0), 1);
  EXPECT_EQ(exp_of_negative(-88), 0);
  EXPECT_EQ(exp_of_negative(-kInfinity), 0);
  for (double x = 1e-3; x < 1e7; x *= 1.37)
    EXPECT_NEAR(natural_log(x), std::log(x), 1e-13 * (1 + std::fabs(std::log(x))));
}

TEST(Sampling, GreedyTakesTheHighestAndTiesGoToTheLowestId) {
  const SamplingParameters greedy{.temperature = 0};
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2}, greedy, {}, 0).token, 1);
  EXPECT_EQ(sample(std::vector<float>{1, 3, 3, 3}, greedy, {}, 0).token, 1);
  EXPECT_EQ(sample(std::vector<float>{-0.0f, 0.0f}, greedy, {}, 0).token, 0);
}

TEST(Sampling, DrawsFromTheSoftmax) {
  const std::vector<float> logits = logits_of({0.5f, 0.2f, 0.15f, 0.1f, 0.05f});
  const auto counts = draws(logits, {.seed = 1}, 20000);
  EXPECT_LT(chi_square(counts, {0.5, 0.2, 0.15, 0.1, 0.05}, 20000), 18.5);  // 4 degrees of freedom, p = 0.001
}

TEST(Sampling, TemperatureSharpensAndFlattens) {
  const std::vector<float> logits = logits_of({0.8f, 0.2f});
  EXPECT_LT(chi_square(draws(logits, {.temperature = 0.5f, .seed = 2}, 20000), {16.0 / 17, 1.0 / 17}, 20000),
            10.9);
  EXPECT_LT(chi_square(draws(logits, {.temperature = 2, .seed = 3}, 20000), {2.0 / 3, 1.0 / 3}, 20000), 10.9);
}

TEST(Sampling, TopKKeepsTheKBestAndTiesGoToTheLowestIds) {
  const std::vector<float> logits = logits_of({0.1f, 0.3f, 0.1f, 0.4f, 0.1f});
  const auto two = draws(logits, {.top_k = 2, .seed = 4}, 20000);
  EXPECT_LT(chi_square(two, {0, 3.0 / 7, 0, 4.0 / 7, 0}, 20000), 10.9);
  EXPECT_EQ(two.size(), 2u);
  const auto three = draws(logits, {.top_k = 3, .seed = 5}, 5000);
  EXPECT_EQ(three.size(), 3u);
  EXPECT_TRUE(three.contains(0));
  EXPECT_EQ(draws(logits, {.top_k = 1, .seed = 6}, 100).size(), 1u);
  EXPECT_EQ(draws(logits, {.top_k = 99, .seed = 7}, 5000).size(), 5u);
}

TEST(Sampling, TopPKeepsTheFewestTokensThatHoldTheMass) {
  const std::vector<float> logits = logits_of({0.1f, 0.25f, 0.05f, 0.6f});
  EXPECT_EQ(draws(logits, {.top_p = 0.5f, .seed = 8}, 2000).size(), 1u);
  EXPECT_EQ(draws(logits, {.top_p = 0, .seed = 8}, 2000).size(), 1u);
  const auto two = draws(logits, {.top_p = 0.8f, .seed = 9}, 20000);
  EXPECT_LT(chi_square(two, {0, 25.0 / 85, 0, 60.0 / 85}, 20000), 10.9);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_EQ(draws(logits, {.top_p = 0.9f, .seed = 10}, 5000).size(), 3u);
}

TEST(Sampling, TopPReachesFarIntoAFlatVocabulary) {
  const std::vector<float> flat(3000, 1.0f);
  const auto counts = draws(flat, {.top_p = 0.5f, .seed = 11}, 4000);
  EXPECT_LT(counts.rbegin()->first, 1501);  // the lowest ids, as all are tied
  EXPECT_GT(counts.rbegin()->first, 1400);
  EXPECT_LT(counts.begin()->first, 20);
}

TEST(Sampling, MinPDropsWhatIsFarBelowTheBest) {
  const std::vector<float> logits = logits_of({0.5f, 0.3f, 0.15f, 0.05f});
  const auto counts = draws(logits, {.min_p = 0.4f, .seed = 12}, 20000);
  EXPECT_LT(chi_square(counts, {5.0 / 8, 3.0 / 8, 0, 0}, 20000), 10.9);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_EQ(draws(logits, {.min_p = 1, .seed = 13}, 500).size(), 1u);
}

// top-k first leaves {0.4, 0.3} of which top-p 0.55 keeps one; the other way round two would stay.
TEST(Sampling, TopPJudgesWhatTopKLeft) {
  const std::vector<float> logits = logits_of({0.4f, 0.3f, 0.2f, 0.1f});
  EXPECT_EQ(draws(logits, {.top_k = 2, .top_p = 0.55f, .seed = 14}, 2000).size(), 1u);
  EXPECT_EQ(draws(logits, {.top_p = 0.55f, .seed = 14}, 2000).size(), 2u);
}

// Temperature comes before top-p: flattened, more tokens are needed for the mass.
TEST(Sampling, TemperatureComesBeforeTopP) {
  const std::vector<float> logits = logits_of({0.7f, 0.2f, 0.1f});
  EXPECT_EQ(draws(logits, {.top_p = 0.65f, .seed = 15}, 2000).size(), 1u);
  EXPECT_EQ(draws(logits, {.temperature = 5, .top_p = 0.65f, .seed = 15}, 2000).size(), 2u);
}

TEST(Sampling, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  TokenHistory history;
  history.add_prompt(std::vector<int32_t>{0});
  const SamplingParameters parameters{.temperature = 0, .repetition_penalty = 2};
  EXPECT_EQ(sample(std::vector<float>{3, 2}, parameters, history, 0).token, 1);
  EXPECT_EQ(sample(std::vector<float>{5, 2}, parameters, history, 0).token, 0);
  EXPECT_EQ(sample(std::vector<float>{-1, -1.5f}, parameters, history, 0).token, 1);
  EXPECT_EQ(sample(std::vector<float>{-1, -2.5f}, parameters, history, 0).token, 0);
}

TEST(Sampling, PresenceAndFrequencyPenaltiesCountTheAnswerOnly) {
  TokenHistory history;
  history.add_prompt(std::vector<int32_t>{1, 1, 1, 1});
  history.add_answer(0);
  history.add_answer(0);
  history.add_answer(0);
  EXPECT_EQ(
      sample(std::vector<float>{2, 1.4f}, {.temperature = 0, .presence_penalty = 0.5f}, history, 0).token, 0);
  EXPECT_EQ(
      sample(std::vector<float>{2, 1.6f}, {.temperature = 0, .presence_penalty = 0.5f}, history, 0).token, 1);
  EXPECT_EQ(
      sample(std::vector<float>{2, 0.4f}, {.temperature = 0, .frequency_penalty = 0.5f}, history, 0).token,
      0);
  EXPECT_EQ(
      sample(std::vector<float>{2, 0.6f}, {.temperature = 0, .frequency_penalty = 0.5f}, history, 0).token,
      1);
}

// (4 / 2) - 1 + 0.5 = 1.5 for token 0; a bias before the division would give 1.25, a presence penalty before
// it 2.
TEST(Sampling, RepetitionThenPresenceThenBias) {
  TokenHistory history;
  history.add_answer(0);
  const SamplingParameters parameters{
      .temperature = 0, .repetition_penalty = 2, .presence_penalty = 1, .logit_bias = {{0, 0.5f}}};
  EXPECT_EQ(sample(std::vector<float>{4, 1.4f}, parameters, history, 0).token, 0);
  EXPECT_EQ(sample(std::vector<float>{4, 1.6f}, parameters, history, 0).token, 1);
}

TEST(Sampling, BiasForbidsAndForces) {
  const std::vector<float> logits = logits_of({0.9f, 0.05f, 0.05f});
  EXPECT_FALSE(draws(logits, {.seed = 16, .logit_bias = {{0, -100.0f}}}, 2000).contains(0));
  EXPECT_EQ(draws(logits, {.seed = 17, .logit_bias = {{2, 100.0f}}}, 200).size(), 1u);
}

TEST(Sampling, IdsOutsideTheVocabularyAreIgnored) {
  TokenHistory history;
  history.add_prompt(std::vector<int32_t>{-5, 2'000'000'000});
  history.add_answer(-1);
  const SamplingParameters parameters{.temperature = 0,
                                      .repetition_penalty = 2,
                                      .presence_penalty = 1,
                                      .logit_bias = {{-7, 50.0f}, {99, 50.0f}}};
  EXPECT_EQ(sample(std::vector<float>{1, 2}, parameters, history, 0).token, 1);
}

TEST(Sampling, LogprobsAreOfTheRawDistribution) {
  const std::vector<float> logits = logits_of({0.5f, 0.1f, 0.4f});
  const SamplingParameters parameters{
      .temperature = 0.1f, .top_k = 1, .top_logprobs = 2, .logit_bias = {{1, 100.0f}}};
  const SampledToken sampled = sample(logits, parameters, {}, 0);
  EXPECT_EQ(sampled.token, 1);
  EXPECT_NEAR(sampled.logprob, std::log(0.1), 1e-5);
  ASSERT_EQ(sampled.alternatives.size(), 2u);
  EXPECT_EQ(sampled.alternatives[0].token, 0);
  EXPECT_NEAR(sampled.alternatives[0].logprob, std::log(0.5), 1e-5);
  EXPECT_EQ(sampled.alternatives[1].token, 2);
  EXPECT_EQ(sample(logits, {.top_logprobs = 50}, {}, 0).alternatives.size(), 3u);
}

TEST(Sampling, TheSameSeedAndPositionGiveTheSameTokenAndOthersDoNot) {
  const std::vector<float> logits(1000, 0.0f);
  EXPECT_EQ(sample(logits, {.seed = 5}, {}, 9).token, sample(logits, {.seed = 5}, {}, 9).token);
  EXPECT_GT(draws(logits, {.seed = 5}, 1000).size(), 550u);  // 632 expected of independent positions
  std::map<int32_t, int> by_seed;
  for (uint64_t seed = 0; seed < 1000; ++seed) by_seed[sample(logits, {.seed = seed}, {}, 9).token] += 1;
  EXPECT_GT(by_seed.size(), 550u);
}

// The numbers themselves are pinned: they must be the same on every machine and in every version.
TEST(Sampling, DrawsAreTheSameOnEveryMachine) {
  std::vector<float> logits(257);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 7919) % 101) * 0.07f;
  std::vector<int32_t> all, nucleus;
  for (uint64_t position = 0; position < 8; ++position) {
    all.push_back(sample(logits, {.temperature = 0.9f, .seed = 42}, {}, position).token);
    nucleus.push_back(
        sample(logits, {.top_k = 50, .top_p = 0.9f, .min_p = 0.05f, .seed = 42}, {}, position).token);
  }
  EXPECT_THAT(all, ElementsAre(123, 86, 165, 167, 219, 76, 192, 108));
  EXPECT_THAT(nucleus, ElementsAre(192, 229, 187, 17, 12, 27, 49, 160));
}

// A toy model: the next logits depend on the last token. Stopping and resuming from the committed tokens goes
// on alike.
TEST(Sampling, AResumedAnswerGoesOnAsAContinuousOne) {
  constexpr size_t kVocabulary = 50;
  const auto logits_after = [](int32_t token) {
    std::mt19937 random(static_cast<uint32_t>(token));
    std::vector<float> logits(kVocabulary);
    for (float& logit : logits) logit = static_cast<float>(random() % 1000) * 0.004f;
    return logits;
  };
  const SamplingParameters parameters{
      .temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1.2f, .frequency_penalty = 0.1f, .seed = 77};
  const std::vector<int32_t> prompt = {1, 2, 3};
  const auto generate = [&](std::vector<int32_t> committed, size_t total) {
    TokenHistory history;
    history.add_prompt(prompt);
    for (int32_t token : committed) history.add_answer(token);
    while (committed.size() < total) {
      const int32_t last = committed.empty() ? prompt.back() : committed.back();
      const uint64_t position = prompt.size() + committed.size();
      committed.push_back(sample(logits_after(last), parameters, history, position).token);
      history.add_answer(committed.back());
    }
    return committed;
  };
  const std::vector<int32_t> continuous = generate({}, 40);
  for (size_t stop : {1u, 13u, 39u})
    EXPECT_EQ(generate({continuous.begin(), continuous.begin() + static_cast<std::ptrdiff_t>(stop)}, 40),
              continuous);
}

TEST(Sampling, NotANumberAndInfinityAreHarmless) {
  const std::vector<std::vector<float>> strange = {
      {kNan, kNan, kNan},
      {kNan, 1, kNan},
      {kInfinity, 1, kInfinity},
      {-kInfinity, -kInfinity, -kInfinity},
      {kInfinity, -kInfinity, kNan},
      {std::numeric_limits<float>::max(), -std::numeric_limits<float>::max(), 0}};
  const std::vector<SamplingParameters> ways = {{.temperature = 0, .top_logprobs = 3},
                                                {.seed = 1},
                                                {.top_k = 2},
                                                {.top_p = 0.5f},
                                                {.min_p = 0.5f},
                                                {.temperature = 1e-38f, .top_p = 0.9f},
                                                {.temperature = 1e6f, .repetition_penalty = 1.5f}};
  TokenHistory history;
  history.add_answer(0);
  for (const auto& logits : strange) {
    for (const SamplingParameters& way : ways) {
      const SampledToken sampled = sample(logits, way, history, 3);
      EXPECT_GE(sampled.token, 0);
      EXPECT_LT(sampled.token, 3);
      EXPECT_TRUE(std::isfinite(sampled.logprob));
    }
  }
  EXPECT_EQ(sample(strange[1], {.temperature = 0}, {}, 0).token, 1);
  EXPECT_EQ(sample(strange[1], {.seed = 3}, {}, 0).token, 1);
}

TEST(TokenHistory, CountsPromptAndAnswerSortedByToken) {
  TokenHistory history;
  history.add_prompt(std::vector<int32_t>{5, 3, 5});
  history.add_answer(4);
  history.add_answer(5);
  history.add_prompt(std::vector<int32_t>{9, 4, 1});
  std::vector<std::array<int64_t, 3>> counts;
  for (const auto& count : history.counts())
    counts.push_back({count.token, count.in_prompt, count.in_answer});
  const std::vector<std::array<int64_t, 3>> expected = {
      {1, 1, 0}, {3, 1, 0}, {4, 1, 1}, {5, 2, 1}, {9, 1, 0}};
  EXPECT_EQ(counts, expected);
}

}  // namespace
}  // namespace shoal::runtime
