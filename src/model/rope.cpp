#include "model/rope.h"

#include <cmath>
#include <fmt/format.h>
#include <numbers>

#include "base/assert.h"

namespace shoal::model {
namespace {

double scale_frequency(double frequency, const RopeScaling& scaling) {
  switch (scaling.kind) {
    case RopeScaling::Kind::none:
      return frequency;
    case RopeScaling::Kind::linear:
      return frequency / scaling.factor;
    case RopeScaling::Kind::llama3:
      break;
  }
  const double turns =
      scaling.original_context * frequency / (2 * std::numbers::pi);  // over the original context
  if (turns < scaling.low_frequency_factor) return frequency / scaling.factor;
  if (turns > scaling.high_frequency_factor) return frequency;
  const double kept =
      (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

}  // namespace

Result<std::vector<float>> inverse_frequencies(uint32_t dimensions, double theta, const RopeScaling& scaling,
                                               std::span<const float> divisors) {
  SHOAL_ASSERT(dimensions % 2 == 0);
  SHOAL_ASSERT(divisors.empty() || divisors.size() == dimensions / 2);
  std::vector<float> frequencies(dimensions / 2);
  for (uint32_t i = 0; i < frequencies.size(); ++i) {
    double frequency = scale_frequency(std::pow(theta, -2.0 * i / dimensions), scaling);
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

}  // namespace shoal::model
