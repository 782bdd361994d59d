// The GGUF side of model/rope_config.h.
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/limits.h"
#include "formats/dequantise.h"
#include "formats/layout.h"
#include "model/rope.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

constexpr std::string_view kLogMultiplier = "rope.scaling.yarn_log_multiplier";

// One number for each pair, by which its frequency is divided; empty when there is no such tensor.
Result<std::vector<float>> read_divisors(const formats::Checkpoint& checkpoint, std::string_view name,
                                         uint32_t pairs) {
  const formats::TensorInfo* tensor = checkpoint.find(name);
  if (!tensor) return std::vector<float>{};
  if (tensor->shape != std::vector<uint64_t>{pairs}) {
    return fail(ErrorCode::malformed, fmt::format("tensor '{}' has the shape [{}], expected [{}]", name,
                                                  fmt::join(tensor->shape, ", "), pairs));
  }
  std::vector<float> divisors(pairs);
  SHOAL_TRY_VOID(formats::dequantise(tensor->type, checkpoint.bytes(*tensor), divisors));
  for (const float divisor : divisors) {
    if (std::isfinite(divisor) && divisor > 0) continue;
    return fail(ErrorCode::malformed, fmt::format("tensor '{}' divides a frequency by {}", name, divisor));
  }
  return divisors;
}

// Yarn as `transformers` computes it from the fields that the converter copied.
Result<double> read_yarn(Metadata& metadata, const RopeOptions& options, RopeScaling& scaling) {
  scaling.kind = RopeScaling::Kind::yarn;
  SHOAL_TRY(const auto original, metadata.get_positive("rope.scaling.original_context_length"));
  scaling.original_context = original.value_or(options.context_tokens);
  SHOAL_TRY(const auto fast_turns, metadata.get_positive("rope.scaling.yarn_beta_fast"));
  SHOAL_TRY(const auto slow_turns, metadata.get_positive("rope.scaling.yarn_beta_slow"));
  scaling.fast_turns = fast_turns.value_or(32);
  scaling.slow_turns = slow_turns.value_or(1);
  scaling.whole_indices = options.yarn_whole_indices;
  SHOAL_TRY(const double extrapolation, metadata.get_number("rope.scaling.yarn_ext_factor", 1));
  if (extrapolation != 1)
    return metadata.not_supported("rope.scaling.yarn_ext_factor", fmt::format("{}", extrapolation));
  SHOAL_TRY(const auto stated, metadata.get_positive("rope.scaling.yarn_attn_factor"));
  SHOAL_TRY(const double weight_of_scores, metadata.get_number(kLogMultiplier, 0));
  if (stated) return *stated;
  if (weight_of_scores == 0) return yarn_magnitude(scaling.factor);
  if (options.log_multiplier_is_for_scores) return 1.0;
  return yarn_magnitude(scaling.factor) / yarn_magnitude(scaling.factor, weight_of_scores);
}

Result<RopeScaling> read_scaling(Metadata& metadata, const RopeOptions& options, double& magnitude) {
  RopeScaling scaling;
  SHOAL_TRY(const auto old_factor,
            metadata.get_positive("rope.scale_linear"));  // of files older than rope.scaling.*
  SHOAL_TRY(const auto kind, metadata.get_text("rope.scaling.type"));
  SHOAL_TRY(const auto factor, metadata.get_positive("rope.scaling.factor"));
  SHOAL_TRY(const auto attention_factor, metadata.get_positive("rope.scaling.attn_factor"));
  magnitude = attention_factor.value_or(1);
  if (kind == "none") return scaling;
  scaling.factor = factor.value_or(old_factor.value_or(options.default_factor));
  if (!kind || *kind == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
  } else if (*kind == "yarn") {
    SHOAL_TRY(const double yarn, read_yarn(metadata, options, scaling));
    magnitude *= yarn;
  } else if (*kind != "longrope") {  // whose divisors are tensors
    return metadata.not_supported("rope.scaling.type", formats::quote(*kind));
  }
  return scaling;
}

Result<> read_long_factors(Metadata& metadata, const RopeOptions& options, std::vector<float>& divisors,
                           std::vector<float>& long_divisors, RopeSpec& rope) {
  const uint32_t pairs = rope.dimensions / 2;
  const formats::Checkpoint& checkpoint = metadata.checkpoint();
  SHOAL_TRY(long_divisors, read_divisors(checkpoint, "rope_factors_long.weight", pairs));
  SHOAL_TRY(std::vector<float> short_divisors, read_divisors(checkpoint, "rope_factors_short.weight", pairs));
  if (long_divisors.empty() != short_divisors.empty())
    return fail(ErrorCode::malformed,
                "only one of the tensors 'rope_factors_long.weight' and "
                "'rope_factors_short.weight' is there");
  if (long_divisors.empty()) return {};
  divisors = std::move(short_divisors);
  SHOAL_TRY(const auto original,
            metadata.get_count("rope.scaling.original_context_length", limits::kMaxContextTokens));
  rope.long_after_tokens = original.value_or(options.context_tokens);
  return {};
}

}  // namespace

Result<RopeSpec> read_rope(Metadata& metadata, const RopeOptions& options) {
  RopeSpec rope;
  rope.pairs = options.pairs;
  SHOAL_TRY(const auto dimensions, metadata.get_count("rope.dimension_count", limits::kMaxHeadDim));
  rope.dimensions = dimensions.value_or(options.head_dim);
  if (rope.dimensions % 2 != 0 || rope.dimensions > options.head_dim) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is {}, but must be even and at most the head size {}",
                            metadata.name("rope.dimension_count"), rope.dimensions, options.head_dim));
  }
  SHOAL_TRY(const auto stated_theta, metadata.get_positive(options.theta_key));
  const double theta = stated_theta.value_or(options.default_theta);
  double magnitude = 1;
  RopeScaling scaling;
  std::vector<float> divisors, long_divisors;
  if (options.scaled) {
    SHOAL_TRY(scaling, read_scaling(metadata, options, magnitude));
    SHOAL_TRY(divisors, read_divisors(metadata.checkpoint(), "rope_freqs.weight", rope.dimensions / 2));
    SHOAL_TRY_VOID(read_long_factors(metadata, options, divisors, long_divisors, rope));
  }
  rope.magnitude = static_cast<float>(magnitude);
  SHOAL_TRY(rope.inverse_frequencies, inverse_frequencies(rope.dimensions, theta, scaling, divisors));
  if (!long_divisors.empty()) {
    SHOAL_TRY(rope.long_inverse_frequencies,
              inverse_frequencies(rope.dimensions, theta, scaling, long_divisors));
  }
  return rope;
}

Result<double> read_yarn_score_factor(Metadata& metadata) {
  SHOAL_TRY(const double multiplier, metadata.get_number(kLogMultiplier, 0));
  SHOAL_TRY(const auto factor, metadata.get_positive("rope.scaling.factor"));
  return std::pow(yarn_magnitude(factor.value_or(1), 10 * multiplier), 2);
}

}  // namespace shoal::model
