#include "runtime/sampling.h"

#include <algorithm>
#include <limits>

#include "base/assert.h"
#include "runtime/portable_math.h"
#include "runtime/random.h"

namespace shoal::runtime {

namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kLeastLogprob = -9999;  // of a token that cannot occur; JSON has no infinity

// NaN and -infinity become the least float, +infinity the largest: whatever a model computes, there is an
// order.
float finite(float logit) {
  const float above = logit > -kLargest ? logit : -kLargest;
  return above < kLargest ? above : kLargest;
}

struct Candidate {
  int32_t token;
  float value;
};

// The order of preference everywhere: the higher value, then the lower id.
bool better(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.token < b.token;
}

Candidate best(std::span<const float> logits) {
  Candidate found{0, finite(logits[0])};
  for (size_t token = 1; token < logits.size(); ++token)
    if (const float value = finite(logits[token]); value > found.value)
      found = {static_cast<int32_t>(token), value};
  return found;
}

// The `count` best, best first. A heap of the best so far, its worst on top: most tokens cost one comparison.
std::vector<Candidate> best_of(std::span<const float> logits, size_t count) {
  count = std::min(count, logits.size());
  std::vector<Candidate> heap;
  heap.reserve(count);
  for (size_t token = 0; token < logits.size() && count > 0; ++token) {
    const Candidate candidate{static_cast<int32_t>(token), finite(logits[token])};
    if (heap.size() < count) {
      heap.push_back(candidate);
      std::ranges::push_heap(heap, better);
    } else if (better(candidate, heap.front())) {
      std::ranges::pop_heap(heap, better);
      heap.back() = candidate;
      std::ranges::push_heap(heap, better);
    }
  }
  std::ranges::sort_heap(heap, better);
  return heap;
}

// Sum of e^(logit - maximum) in eight interleaved partial sums, folded in order. `weights`, when not empty,
// receives the terms. `inverse_temperature` multiplies the difference.
double sum_of_exponentials(std::span<const float> logits, float maximum, float temperature,
                           std::span<float> weights) {
  constexpr size_t kLanes = 8;
  constexpr size_t kBlock = 512;
  float block[kBlock];
  double lanes[kLanes] = {};
  for (size_t first = 0; first < logits.size(); first += kBlock) {
    const size_t count = std::min(kBlock, logits.size() - first);
    for (size_t i = 0; i < count; ++i)
      block[i] = exp_of_negative((finite(logits[first + i]) - maximum) / temperature);
    std::fill(block + count, block + kBlock, 0.0f);
    for (size_t i = 0; i < kBlock; i += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(block[i + lane]);
    if (!weights.empty()) std::copy_n(block, count, weights.begin() + static_cast<std::ptrdiff_t>(first));
  }
  double sum = 0;
  for (double lane : lanes) sum += lane;
  return sum;
}

// Penalties and bias touch few tokens. Returns the logits as they are when nothing changes.
std::span<const float> adjust(std::span<const float> logits, const SamplingParameters& parameters,
                              const TokenHistory& history, std::vector<float>& storage) {
  const bool penalised = parameters.repetition_penalty != 1 || parameters.presence_penalty != 0 ||
                         parameters.frequency_penalty != 0;
  if ((!penalised || history.counts().empty()) && parameters.logit_bias.empty()) return logits;
  storage.assign(logits.begin(), logits.end());
  const auto known = [&](int32_t token) { return token >= 0 && static_cast<size_t>(token) < logits.size(); };
  if (penalised) {
    for (const TokenHistory::Count& count : history.counts()) {
      if (!known(count.token)) continue;
      float& logit = storage[static_cast<size_t>(count.token)];
      logit = logit > 0 ? logit / parameters.repetition_penalty : logit * parameters.repetition_penalty;
      if (count.in_answer == 0) continue;
      logit -=
          parameters.presence_penalty + static_cast<float>(count.in_answer) * parameters.frequency_penalty;
    }
  }
  for (const auto& [token, bias] : parameters.logit_bias)
    if (known(token)) storage[static_cast<size_t>(token)] += bias;
  return storage;
}

// Turns the values of candidates (best first) into weights relative to the best.
void to_weights(std::vector<Candidate>& candidates, float temperature) {
  const float maximum = candidates.front().value;
  for (Candidate& candidate : candidates)
    candidate.value = exp_of_negative((candidate.value - maximum) / temperature);
}

// Cuts candidates (best first, weights as values) after the one that brings their sum to `mass`. False when
// they do not reach it.
bool cut_at_mass(std::vector<Candidate>& candidates, double mass) {
  double sum = 0;
  for (size_t index = 0; index < candidates.size(); ++index) {
    sum += static_cast<double>(candidates[index].value);
    if (sum >= mass) {
      candidates.resize(index + 1);
      return true;
    }
  }
  return false;
}

// The fewest best tokens that hold `top_p` of the whole distribution. Tries a few first: a model that knows
// what it wants to say has its mass in a handful of tokens.
std::vector<Candidate> nucleus(std::span<const float> logits, float maximum,
                               const SamplingParameters& parameters) {
  const double total = sum_of_exponentials(logits, maximum, parameters.temperature, {});
  const double mass = total * static_cast<double>(parameters.top_p);
  for (size_t count = 64;; count *= 16) {
    std::vector<Candidate> candidates = best_of(logits, count);
    to_weights(candidates, parameters.temperature);
    if (cut_at_mass(candidates, mass) || candidates.size() == logits.size()) return candidates;
  }
}

// Draws from the candidates in the order given; `point` in [0, 1).
int32_t draw(const std::vector<Candidate>& candidates, double point) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += static_cast<double>(candidate.value);
  const double target = total * point;
  double sum = 0;
  int32_t last = candidates.front().token;
  for (const Candidate& candidate : candidates) {
    if (!(candidate.value > 0)) continue;
    sum += static_cast<double>(candidate.value);
    last = candidate.token;
    if (sum > target) break;
  }
  return last;
}

// From the whole vocabulary, in the order of ids; only weights of at least `least` (the best one's is 1)
// count.
int32_t draw_from_all(std::span<const float> logits, float maximum, float temperature, float least,
                      double point) {
  std::vector<float> weights(logits.size());
  double total = sum_of_exponentials(logits, maximum, temperature, weights);
  if (least > 0) {
    total = 0;
    for (float& weight : weights) {
      if (weight < least) weight = 0;
      total += static_cast<double>(weight);
    }
  }
  const double target = total * point;
  double sum = 0;
  size_t last = 0;
  for (size_t token = 0; token < weights.size(); ++token) {
    if (!(weights[token] > 0)) continue;
    sum += static_cast<double>(weights[token]);
    last = token;
    if (sum > target) break;
  }
  return static_cast<int32_t>(last);
}

int32_t choose(std::span<const float> logits, const SamplingParameters& parameters, uint64_t position) {
  const Candidate top = best(logits);
  if (!(parameters.temperature > 0) || parameters.top_k == 1) return top.token;
  const double point = uniform_at(parameters.seed, position);
  const float least = std::min(parameters.min_p, 1.0f);
  const bool limited = parameters.top_k != 0 && parameters.top_k < logits.size();
  if (!limited && !(parameters.top_p < 1))
    return draw_from_all(logits, top.value, parameters.temperature, least, point);

  std::vector<Candidate> candidates;
  if (limited) {
    candidates = best_of(logits, parameters.top_k);
    to_weights(candidates, parameters.temperature);
    if (parameters.top_p < 1) {
      double total = 0;
      for (const Candidate& candidate : candidates) total += static_cast<double>(candidate.value);
      cut_at_mass(candidates, total * static_cast<double>(parameters.top_p));
    }
  } else {
    candidates = nucleus(logits, top.value, parameters);
  }
  if (least > 0)
    std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.value < least; });
  return draw(candidates, point);
}

}  // namespace

SampledToken sample(std::span<const float> logits, const SamplingParameters& parameters,
                    const TokenHistory& history, uint64_t position) {
  SHOAL_ASSERT(!logits.empty());
  std::vector<float> storage;
  const int32_t token = choose(adjust(logits, parameters, history, storage), parameters, position);

  const float maximum = best(logits).value;
  const double log_total = natural_log(sum_of_exponentials(logits, maximum, 1, {}));
  const auto logprob = [&](float logit) {
    const double difference = static_cast<double>(finite(logit)) - static_cast<double>(maximum);
    return std::max(static_cast<float>(difference - log_total), kLeastLogprob);
  };
  SampledToken sampled{
      .token = token, .logprob = logprob(logits[static_cast<size_t>(token)]), .alternatives = {}};
  for (const Candidate& candidate : best_of(logits, parameters.top_logprobs))
    sampled.alternatives.push_back({candidate.token, logprob(candidate.value)});
  return sampled;
}

}  // namespace shoal::runtime
