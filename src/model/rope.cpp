#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numbers>

#include "base/assert.h"

namespace shoal::model {
namespace {

double llama3_frequency(double frequency, const RopeScaling& scaling) {
  const double turns =
      scaling.original_context * frequency / (2 * std::numbers::pi);  // over the original context
  if (turns < scaling.low_frequency_factor) return frequency / scaling.factor;
  if (turns > scaling.high_frequency_factor) return frequency;
  const double kept =
      (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

// Pairs from `first` on are stretched more and more, those from `last` on wholly.
struct YarnBlend {
  double first = 0;
  double last = 0;

  YarnBlend(uint32_t dimensions, double theta, const RopeScaling& scaling) {
    const auto pair_of_turns = [&](double turns) {
      return dimensions * std::log(scaling.original_context / (turns * 2 * std::numbers::pi)) /
             (2 * std::log(theta));
    };
    first = pair_of_turns(scaling.fast_turns);
    last = pair_of_turns(scaling.slow_turns);
    if (scaling.whole_indices) {
      first = std::floor(first);
      last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, dimensions - 1.0);
    if (first == last) last += 0.001;  // as the reference does
  }

  double frequency(uint32_t pair, double plain, double factor) const {
    const double stretched = std::clamp((pair - first) / (last - first), 0.0, 1.0);
    return plain / factor * stretched + plain * (1 - stretched);
  }
};

}  // namespace

Result<std::vector<float>> inverse_frequencies(uint32_t dimensions, double theta, const RopeScaling& scaling,
                                               std::span<const float> divisors) {
  using Kind = RopeScaling::Kind;
  std::vector<float> frequencies((dimensions + 1) / 2);
  SHOAL_ASSERT(divisors.empty() || divisors.size() == frequencies.size());
  const YarnBlend blend(dimensions, theta, scaling);
  for (uint32_t i = 0; i < frequencies.size(); ++i) {
    double frequency = std::pow(theta, -2.0 * i / dimensions);
    if (scaling.kind == Kind::linear) frequency /= scaling.factor;
    if (scaling.kind == Kind::llama3) frequency = llama3_frequency(frequency, scaling);
    if (scaling.kind == Kind::yarn) frequency = blend.frequency(i, frequency, scaling.factor);
    if (!divisors.empty()) frequency /= divisors[i];
    frequencies[i] = static_cast<float>(frequency);
    if (!std::isfinite(frequencies[i]) || frequencies[i] <= 0) {
      return fail(ErrorCode::malformed,
                  fmt::format("rotary frequency {} of {} is {} (base {}, factor {})", i, frequencies.size(),
                              frequencies[i], theta, scaling.factor));
    }
  }
  return frequencies;
}

double yarn_magnitude(double factor, double weight) {
  return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1;
}

double long_rope_magnitude(double factor, double original_context) {
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original_context));
}

}  // namespace shoal::model
