// The binary form of SamplingParameters; see step.h for what travels.
#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"
#include "runtime/sampling.h"

namespace shoal::runtime {

namespace {

Result<> check_range(std::string_view field, float value, float minimum, float maximum) {
  if (value >= minimum && value <= maximum) return {};  // false for NaN
  return fail(ErrorCode::malformed,
              fmt::format("sampling: {} is {}, outside {} to {}", field, value, minimum, maximum));
}

Result<> check(const SamplingParameters& parameters) {
  constexpr float kLarge = 1e6f;
  SHOAL_TRY_VOID(check_range("temperature", parameters.temperature, 0, kLarge));
  SHOAL_TRY_VOID(check_range("top_p", parameters.top_p, 0, 1));
  SHOAL_TRY_VOID(check_range("min_p", parameters.min_p, 0, 1));
  SHOAL_TRY_VOID(check_range("repetition_penalty", parameters.repetition_penalty, 1e-6f, kLarge));
  SHOAL_TRY_VOID(check_range("presence_penalty", parameters.presence_penalty, -kLarge, kLarge));
  SHOAL_TRY_VOID(check_range("frequency_penalty", parameters.frequency_penalty, -kLarge, kLarge));
  if (parameters.top_logprobs > limits::kMaxTopLogprobs)
    return fail(ErrorCode::limit_exceeded, fmt::format("sampling: top_logprobs is {}, more than {}",
                                                       parameters.top_logprobs, limits::kMaxTopLogprobs));
  for (const auto& [token, bias] : parameters.logit_bias)
    if (!std::isfinite(bias))
      return fail(ErrorCode::malformed, fmt::format("sampling: the bias of token {} is {}", token, bias));
  return {};
}

}  // namespace

void SamplingParameters::encode(ByteWriter& writer) const {
  writer.write(temperature);
  writer.write(top_k);
  writer.write(top_p);
  writer.write(min_p);
  writer.write(repetition_penalty);
  writer.write(presence_penalty);
  writer.write(frequency_penalty);
  writer.write(seed);
  writer.write(top_logprobs);
  writer.write(static_cast<uint32_t>(logit_bias.size()));
  for (const auto& [token, bias] : logit_bias) {
    writer.write(token);
    writer.write(bias);
  }
}

Result<SamplingParameters> SamplingParameters::decode(ByteReader& reader) {
  SamplingParameters parameters;
  SHOAL_TRY(parameters.temperature, reader.read<float>());
  SHOAL_TRY(parameters.top_k, reader.read<uint32_t>());
  SHOAL_TRY(parameters.top_p, reader.read<float>());
  SHOAL_TRY(parameters.min_p, reader.read<float>());
  SHOAL_TRY(parameters.repetition_penalty, reader.read<float>());
  SHOAL_TRY(parameters.presence_penalty, reader.read<float>());
  SHOAL_TRY(parameters.frequency_penalty, reader.read<float>());
  SHOAL_TRY(parameters.seed, reader.read<uint64_t>());
  SHOAL_TRY(parameters.top_logprobs, reader.read<uint32_t>());
  SHOAL_TRY(const uint32_t bias_count, reader.read<uint32_t>());
  if (bias_count > limits::kMaxLogitBias)
    return fail(ErrorCode::limit_exceeded, fmt::format("sampling: logit_bias has {} tokens, more than {}",
                                                       bias_count, limits::kMaxLogitBias));
  for (uint32_t index = 0; index < bias_count; ++index) {
    SHOAL_TRY(const int32_t token, reader.read<int32_t>());
    SHOAL_TRY(const float bias, reader.read<float>());
    parameters.logit_bias.emplace_back(token, bias);
  }
  SHOAL_TRY_VOID(check(parameters));
  return parameters;
}

}  // namespace shoal::runtime
