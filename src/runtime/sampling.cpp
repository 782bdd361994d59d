#include "runtime/sampling.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/assert.h"
#include "runtime/portable_math.h"
#include "runtime/random.h"

namespace shoal::runtime {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kLeastLogprob = -9999;  // of a token that cannot occur; JSON has no infinity

// NaN and -infinity become the least float, +infinity the largest: whatever a model computes, there is an
// order.
inline float finite(float logit) {
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

// Passes over the vocabulary go block by block: loops of fixed length, which compilers vectorise.
struct Block {
  static constexpr size_t kSize = 512;
  alignas(64) float values[kSize];

  // Finite logits from `first` on; behind the last one comes -infinity, whose exponential is 0.
  Block(std::span<const float> logits, size_t first) {
    const size_t count = std::min(kSize, logits.size() - first);
    std::copy_n(logits.data() + first, count, values);
    std::fill(values + count, values + kSize, 0.0f);
    for (size_t i = 0; i < kSize; ++i) values[i] = finite(values[i]);
    std::fill(values + count, values + kSize, -kInfinity);
  }

  float maximum() const {
    constexpr size_t kLanes = 16;
    float lanes[kLanes];
    std::copy_n(values, kLanes, lanes);
    for (size_t i = kLanes; i < kSize; i += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane)
        lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    return *std::ranges::max_element(lanes);
  }

  void to_exponentials(float highest, float temperature) {
    for (size_t i = 0; i < kSize; ++i) values[i] = exp_of_negative((values[i] - highest) / temperature);
  }
};

Candidate best(std::span<const float> logits) {
  float highest = -kInfinity;
  size_t found = 0;
  for (size_t first = 0; first < logits.size(); first += Block::kSize) {
    const Block block(logits, first);
    const float maximum = block.maximum();
    if (!(maximum > highest)) continue;
    highest = maximum;
    found = first + static_cast<size_t>(std::ranges::find(block.values, maximum) - block.values);
  }
  return {static_cast<int32_t>(found), highest};
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
    } else if (candidate.value > heap.front().value) {  // of equals the lower id, which is here already
      std::ranges::pop_heap(heap, better);
      heap.back() = candidate;
      std::ranges::push_heap(heap, better);
    }
  }
  std::ranges::sort_heap(heap, better);
  return heap;
}

// Sum of e^((logit - highest) / temperature) in eight interleaved partial sums, folded in order. `weights`,
// when not empty, receives the terms.
double sum_of_exponentials(std::span<const float> logits, float highest, float temperature,
                           std::span<float> weights) {
  constexpr size_t kLanes = 8;
  double lanes[kLanes] = {};
  for (size_t first = 0; first < logits.size(); first += Block::kSize) {
    Block block(logits, first);
    block.to_exponentials(highest, temperature);
    for (size_t i = 0; i < Block::kSize; i += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(block.values[i + lane]);
    if (!weights.empty())
      std::copy_n(block.values, std::min(Block::kSize, logits.size() - first), weights.data() + first);
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

double sum_of(std::span<const Candidate> candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += static_cast<double>(candidate.value);
  return sum;
}

// Draws from the `top_k` best; top-p and min-p judge what top-k left.
int32_t draw_from_best(std::span<const float> logits, const SamplingParameters& parameters, double point) {
  std::vector<Candidate> candidates = best_of(logits, parameters.top_k);
  const float highest = candidates.front().value;
  for (Candidate& candidate : candidates)
    candidate.value = exp_of_negative((candidate.value - highest) / parameters.temperature);
  if (parameters.top_p < 1) {
    const double mass = sum_of(candidates) * static_cast<double>(parameters.top_p);
    double sum = 0;
    size_t kept = 0;
    do sum += static_cast<double>(candidates[kept++].value);
    while (kept < candidates.size() && sum < mass);
    candidates.resize(kept);
  }
  const float least = std::min(parameters.min_p, 1.0f);
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.value < least; });

  const double target = sum_of(candidates) * point;
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += static_cast<double>(candidate.value);
    if (sum > target) return candidate.token;
  }
  return candidates.front().token;
}

// Sets the weights outside of the nucleus to 0: what stays is the fewest best tokens that hold `mass`. No
// sort of the vocabulary: buckets of similar weights (at most 3 % apart) are added from the heaviest on, and
// only the one in which the mass is reached is put in order.
void keep_nucleus(std::span<const float> logits, std::span<float> weights, double mass) {
  constexpr int kShift = 18;  // of a weight's bits: the exponent and five bits of the fraction stay
  const auto bucket_of = [](float weight) { return std::bit_cast<uint32_t>(weight) >> kShift; };
  std::vector<double> sums(bucket_of(1.0f) + 1, 0.0);
  for (float weight : weights) sums[bucket_of(weight)] += static_cast<double>(weight);
  double sum = 0;
  size_t crossing = sums.size() - 1;
  while (crossing > 0 && sum + sums[crossing] < mass) sum += sums[crossing--];

  std::vector<Candidate> ordered;
  for (size_t token = 0; token < weights.size(); ++token) {
    const size_t bucket = bucket_of(weights[token]);
    if (bucket == crossing) ordered.push_back({static_cast<int32_t>(token), finite(logits[token])});
    if (bucket < crossing) weights[token] = 0;
  }
  std::ranges::sort(ordered, better);
  bool reached = false;
  for (const Candidate& candidate : ordered) {
    float& weight = weights[static_cast<size_t>(candidate.token)];
    if (reached) weight = 0;
    sum += static_cast<double>(weight);
    reached = sum >= mass;
  }
}

// Draws from the whole vocabulary, in the order of ids.
int32_t draw_from_all(std::span<const float> logits, float highest, const SamplingParameters& parameters,
                      double point) {
  std::vector<float> weights(logits.size());
  double total = sum_of_exponentials(logits, highest, parameters.temperature, weights);
  if (parameters.top_p < 1) keep_nucleus(logits, weights, total * static_cast<double>(parameters.top_p));
  if (parameters.top_p < 1 || parameters.min_p > 0) {
    const float least = std::min(parameters.min_p, 1.0f);
    total = 0;
    for (float& weight : weights) {
      weight = weight < least ? 0 : weight;
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

// `top` is the best of `logits`.
int32_t choose(std::span<const float> logits, const Candidate& top, const SamplingParameters& parameters,
               uint64_t position) {
  if (!(parameters.temperature > 0) || parameters.top_k == 1) return top.token;
  const double point = uniform_at(parameters.seed, position);
  const bool limited = parameters.top_k != 0 && parameters.top_k < logits.size();
  return limited ? draw_from_best(logits, parameters, point)
                 : draw_from_all(logits, top.value, parameters, point);
}

}  // namespace

SampledToken sample(std::span<const float> logits, const SamplingParameters& parameters,
                    const TokenHistory& history, uint64_t position) {
  SHOAL_ASSERT(!logits.empty());
  std::vector<float> storage;
  const std::span<const float> adjusted = adjust(logits, parameters, history, storage);
  const Candidate raw = best(logits);
  const int32_t token = choose(adjusted, storage.empty() ? raw : best(adjusted), parameters, position);

  const float highest = raw.value;
  const double log_total = natural_log(sum_of_exponentials(logits, highest, 1, {}));
  const auto logprob = [&](float logit) {
    const double difference = static_cast<double>(finite(logit)) - static_cast<double>(highest);
    return std::max(static_cast<float>(difference - log_total), kLeastLogprob);
  };
  SampledToken sampled{
      .token = token, .logprob = logprob(logits[static_cast<size_t>(token)]), .alternatives = {}};
  for (const Candidate& candidate : best_of(logits, parameters.top_logprobs))
    sampled.alternatives.push_back({candidate.token, logprob(candidate.value)});
  return sampled;
}

}  // namespace shoal::runtime
