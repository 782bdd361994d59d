#include "model/rope_config.h"

#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/limits.h"
#include "formats/dequantise.h"
#include "formats/layout.h"
#include "model/rope.h"

namespace shoal::model {
namespace {

Result<RopeScaling> read_scaling(Fields& fields) {
  RopeScaling scaling;
  SHOAL_TRY(auto kind, fields.get_text("rope_type"));
  SHOAL_TRY(const auto old_kind, fields.get_text("type"));
  if (!kind) kind = old_kind;
  if (!kind || *kind == "default") return scaling;
  if (*kind != "linear" && *kind != "llama3")
    return fields.not_supported(fields.contains("rope_type") ? "rope_type" : "type");
  SHOAL_TRY(scaling.factor, fields.require_positive("factor"));
  scaling.kind = RopeScaling::Kind::linear;
  if (*kind == "linear") return scaling;
  scaling.kind = RopeScaling::Kind::llama3;
  SHOAL_TRY(scaling.low_frequency_factor, fields.require_positive("low_freq_factor"));
  SHOAL_TRY(scaling.high_frequency_factor, fields.require_positive("high_freq_factor"));
  SHOAL_TRY(scaling.original_context, fields.require_positive("original_max_position_embeddings"));
  if (scaling.low_frequency_factor >= scaling.high_frequency_factor)
    return fields.wrong_value("low_freq_factor",
                              fmt::format("below 'high_freq_factor' {}", scaling.high_frequency_factor));
  return scaling;
}

Result<RopeScaling> read_scaling(Metadata& metadata) {
  RopeScaling scaling;
  SHOAL_TRY(const auto old_factor,
            metadata.get_positive("rope.scale_linear"));  // of files older than rope.scaling.*
  SHOAL_TRY(const auto kind, metadata.get_text("rope.scaling.type"));
  SHOAL_TRY(const auto factor, metadata.get_positive("rope.scaling.factor"));
  if (kind && *kind != "none" && *kind != "linear")
    return metadata.not_supported("rope.scaling.type", formats::quote(*kind));
  if (kind == "none") return scaling;
  scaling.factor = factor.value_or(old_factor.value_or(1));
  scaling.kind = RopeScaling::Kind::linear;
  return scaling;
}

// Divisors of the frequencies: how llama3 scaling arrives in a GGUF. Empty when there are none.
Result<std::vector<float>> read_divisors(const formats::Checkpoint& checkpoint, uint32_t dimensions) {
  constexpr std::string_view kName = "rope_freqs.weight";
  const formats::TensorInfo* tensor = checkpoint.find(kName);
  if (!tensor) return std::vector<float>{};
  if (tensor->shape != std::vector<uint64_t>{dimensions / 2}) {
    return fail(ErrorCode::malformed, fmt::format("tensor '{}' has the shape [{}], expected [{}]", kName,
                                                  fmt::join(tensor->shape, ", "), dimensions / 2));
  }
  std::vector<float> divisors(dimensions / 2);
  SHOAL_TRY_VOID(formats::dequantise(tensor->type, checkpoint.bytes(*tensor), divisors));
  for (float divisor : divisors) {
    if (std::isfinite(divisor) && divisor > 0) continue;
    return fail(ErrorCode::malformed, fmt::format("tensor '{}' divides a frequency by {}", kName, divisor));
  }
  return divisors;
}

}  // namespace

Result<RopeSpec> read_rope(Fields& fields, const RopeOptions& options) {
  SHOAL_TRY(const auto outer_theta, fields.get_positive("rope_theta"));
  SHOAL_TRY(auto inner,
            fields.get_object(fields.contains("rope_parameters") ? "rope_parameters" : "rope_scaling"));
  RopeSpec rope;
  rope.pairs = options.pairs;
  rope.dimensions = options.head_dim;
  double theta = outer_theta.value_or(options.default_theta);
  RopeScaling scaling;
  if (inner) {
    SHOAL_TRY(const auto inner_theta, inner->get_positive("rope_theta"));
    theta = inner_theta.value_or(theta);
    SHOAL_TRY(scaling, read_scaling(*inner));
    SHOAL_TRY_VOID(inner->refuse_unused());
  }
  SHOAL_TRY(rope.inverse_frequencies, inverse_frequencies(rope.dimensions, theta, scaling, {}));
  return rope;
}

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
  SHOAL_TRY(const auto theta, metadata.get_positive("rope.freq_base"));
  SHOAL_TRY(const RopeScaling scaling, read_scaling(metadata));
  SHOAL_TRY(const auto divisors, read_divisors(metadata.checkpoint(), rope.dimensions));
  SHOAL_TRY(rope.inverse_frequencies,
            inverse_frequencies(rope.dimensions, theta.value_or(options.default_theta), scaling, divisors));
  return rope;
}

}  // namespace shoal::model
