// The config.json side of model/rope_config.h.
#include "model/rope_config.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"
#include "model/rope.h"

namespace shoal::model {
namespace {

struct Stretch {
  RopeScaling scaling;
  double magnitude = 1;
  std::vector<float> short_divisors, long_divisors;  // of longrope
  uint32_t long_after_tokens = 0;
};

// The original context: stated outside (which wins), inside, or the whole context.
Result<double> read_original_context(Fields& fields, Fields& section, const RopeOptions& options) {
  constexpr std::string_view kField = "original_max_position_embeddings";
  SHOAL_TRY(const auto inner, section.get_positive(kField));
  SHOAL_TRY(auto outer, fields.get_positive(kField));
  if (!outer && options.original_context) outer = *options.original_context;
  if (outer && options.layer_type.empty()) return *outer;
  return inner.value_or(options.context_tokens);
}

Result<> read_llama3(Fields& fields, Fields& section, const RopeOptions& options, Stretch& stretch) {
  RopeScaling& scaling = stretch.scaling;
  scaling.kind = RopeScaling::Kind::llama3;
  SHOAL_TRY(scaling.factor, section.require_positive("factor"));
  SHOAL_TRY(scaling.low_frequency_factor, section.require_positive("low_freq_factor"));
  SHOAL_TRY(scaling.high_frequency_factor, section.require_positive("high_freq_factor"));
  SHOAL_TRY(scaling.original_context, read_original_context(fields, section, options));
  if (scaling.low_frequency_factor >= scaling.high_frequency_factor)
    return section.wrong_value("low_freq_factor",
                               fmt::format("below 'high_freq_factor' {}", scaling.high_frequency_factor));
  return {};
}

Result<> read_yarn(Fields& fields, Fields& section, const RopeOptions& options, Stretch& stretch) {
  RopeScaling& scaling = stretch.scaling;
  scaling.kind = RopeScaling::Kind::yarn;
  SHOAL_TRY(scaling.original_context, read_original_context(fields, section, options));
  SHOAL_TRY(const auto factor, section.get_positive("factor"));
  scaling.factor = factor.value_or(options.context_tokens / scaling.original_context);
  SHOAL_TRY(const double fast_turns, section.get_number("beta_fast", 0));
  SHOAL_TRY(const double slow_turns, section.get_number("beta_slow", 0));
  scaling.fast_turns = fast_turns == 0 ? 32 : fast_turns;
  scaling.slow_turns = slow_turns == 0 ? 1 : slow_turns;
  SHOAL_TRY(scaling.whole_indices, section.get_flag("truncate", true));
  SHOAL_TRY(const auto stated, section.get_positive("attention_factor"));
  SHOAL_TRY(const double weight, section.get_number("mscale", 0));
  SHOAL_TRY(const double weight_of_scores, section.get_number("mscale_all_dim", 0));
  stretch.magnitude = yarn_magnitude(scaling.factor);
  if (weight != 0 && weight_of_scores != 0)
    stretch.magnitude =
        yarn_magnitude(scaling.factor, weight) / yarn_magnitude(scaling.factor, weight_of_scores);
  stretch.magnitude = stated.value_or(stretch.magnitude);
  return {};
}

Result<std::vector<float>> read_divisors(Fields& section, std::string_view name, uint32_t pairs) {
  SHOAL_TRY(const std::vector<double> numbers, section.get_numbers(name));
  if (numbers.size() != pairs) return section.wrong_value(name, fmt::format("a list of {} numbers", pairs));
  std::vector<float> divisors;
  for (const double number : numbers) {
    if (number <= 0) return section.wrong_value(name, "a list of numbers over 0");
    divisors.push_back(static_cast<float>(number));
  }
  return divisors;
}

Result<> read_longrope(Fields& fields, Fields& section, const RopeOptions& options, uint32_t pairs,
                       Stretch& stretch) {
  constexpr std::string_view kField = "original_max_position_embeddings";
  SHOAL_TRY(const double original, read_original_context(fields, section, options));
  if (original < 2 || original > static_cast<double>(limits::kMaxContextTokens))
    return (fields.get(kField) ? fields : section)
        .wrong_value(kField, fmt::format("from 2 to {}", limits::kMaxContextTokens));
  SHOAL_TRY(const auto factor, section.get_positive("factor"));
  SHOAL_TRY(const auto stated, section.get_positive("attention_factor"));
  SHOAL_TRY(stretch.short_divisors, read_divisors(section, "short_factor", pairs));
  SHOAL_TRY(stretch.long_divisors, read_divisors(section, "long_factor", pairs));
  stretch.long_after_tokens = static_cast<uint32_t>(original);
  stretch.magnitude =
      stated.value_or(long_rope_magnitude(factor.value_or(options.context_tokens / original), original));
  return {};
}

Result<Stretch> read_stretch(Fields& fields, Fields& section, const RopeOptions& options, uint32_t pairs) {
  Stretch stretch;
  SHOAL_TRY(auto kind, section.get_text("rope_type"));
  SHOAL_TRY(const auto old_kind, section.get_text("type"));
  const std::string_view field = kind ? "rope_type" : "type";
  if (!kind) kind = old_kind;
  // mrope gives text the same position in each of its sections.
  if (!kind || *kind == "default" || *kind == "mrope") return stretch;
  const bool is_long =
      *kind == "longrope" || *kind == "su" || (*kind == "yarn" && options.yarn_means_longrope);
  if (is_long) {
    SHOAL_TRY_VOID(read_longrope(fields, section, options, pairs, stretch));
  } else if (*kind == "llama3") {
    SHOAL_TRY_VOID(read_llama3(fields, section, options, stretch));
  } else if (*kind == "yarn") {
    SHOAL_TRY_VOID(read_yarn(fields, section, options, stretch));
  } else if (*kind == "linear") {
    stretch.scaling.kind = RopeScaling::Kind::linear;
    SHOAL_TRY(stretch.scaling.factor, section.require_positive("factor"));
  } else {
    return section.not_supported(field);
  }
  return stretch;
}

// The object that speaks of these layers: rope_scaling, rope_parameters or a part of it.
Result<std::optional<Fields>> find_section(Fields& fields, const RopeOptions& options) {
  SHOAL_TRY(auto scaling, fields.get_object("rope_scaling"));
  SHOAL_TRY(auto parameters, fields.get_object("rope_parameters"));
  if (scaling && scaling->empty()) scaling.reset();
  if (options.layer_type.empty()) return scaling ? scaling : parameters;
  if (!parameters) return options.layer_type == "full_attention" ? scaling : std::nullopt;
  if (scaling) return fields.not_supported("rope_scaling");
  for (const std::string_view type : {"full_attention", "sliding_attention"}) parameters->get(type);
  SHOAL_TRY_VOID(parameters->refuse_unused());
  SHOAL_TRY(auto own, parameters->get_object(options.layer_type));
  if (!own && (parameters->contains("rope_type") || parameters->contains("rope_theta")))
    return fields.not_supported("rope_parameters");  // one for all layers, where each type needs its own
  return own;
}

// Rotated values of a head. An odd number of them has a last pair all the same.
Result<uint32_t> read_dimensions(Fields& fields, Fields* section, const RopeOptions& options) {
  if (!options.partial_factor) return options.head_dim;
  constexpr std::string_view kField = "partial_rotary_factor";
  SHOAL_TRY(auto factor, fields.get_positive(kField));
  if (section) {
    SHOAL_TRY(const auto inner, section->get_positive(kField));
    if (inner) factor = inner;
  }
  const auto dimensions =
      static_cast<uint32_t>(options.head_dim * std::min(factor.value_or(*options.partial_factor), 2.0));
  if (dimensions < 1 || dimensions + dimensions % 2 > options.head_dim)
    return (section && section->contains(kField) ? *section : fields)
        .wrong_value(kField, fmt::format("a share of {} values", options.head_dim));
  return dimensions;
}

}  // namespace

Result<RopeSpec> read_rope(Fields& fields, const RopeOptions& options) {
  SHOAL_TRY(const auto outer_theta, fields.get_positive(options.theta_field));
  SHOAL_TRY(auto section, find_section(fields, options));
  SHOAL_TRY(const uint32_t dimensions, read_dimensions(fields, section ? &*section : nullptr, options));
  RopeSpec rope;
  rope.pairs = options.pairs;
  rope.dimensions = dimensions + dimensions % 2;
  double theta = outer_theta.value_or(options.default_theta);
  Stretch stretch;
  if (section) {
    SHOAL_TRY(const auto inner_theta, section->get_positive("rope_theta"));
    theta = inner_theta.value_or(theta);
    SHOAL_TRY(stretch, read_stretch(fields, *section, options, rope.dimensions / 2));
    SHOAL_TRY_VOID(section->refuse_unused());
  }
  rope.magnitude = static_cast<float>(stretch.magnitude);
  SHOAL_TRY(rope.inverse_frequencies,
            inverse_frequencies(dimensions, theta, stretch.scaling, stretch.short_divisors));
  if (!stretch.long_divisors.empty()) {
    rope.long_after_tokens = stretch.long_after_tokens;
    SHOAL_TRY(rope.long_inverse_frequencies,
              inverse_frequencies(dimensions, theta, stretch.scaling, stretch.long_divisors));
  }
  return rope;
}

Result<double> read_yarn_score_factor(Fields& fields) {
  SHOAL_TRY(auto section, find_section(fields, {}));
  if (!section) return 1.0;
  SHOAL_TRY(const double weight, section->get_number("mscale_all_dim", 0));
  if (weight == 0) return 1.0;
  SHOAL_TRY(const double factor, section->require_positive("factor"));
  return std::pow(yarn_magnitude(factor, weight), 2);
}

}  // namespace shoal::model
