// The config.json side of model/config.h: Hugging Face `transformers` configurations in both styles.
#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"
#include "model/config.h"
#include "model/rope.h"

namespace shoal::model {
namespace {

std::string shown(const Json& value) {
  constexpr size_t kShown = 80;
  std::string text = to_text(value);
  if (text.size() > kShown) text = text.substr(0, kShown) + "…";
  return text;
}

std::unexpected<Error> wrong_value(std::string_view name, const Json& value, std::string_view expected) {
  return fail(ErrorCode::malformed,
              fmt::format("config.json: '{}' is {}, but must be {}", name, shown(value), expected));
}

std::unexpected<Error> missing(std::string_view name) {
  return fail(ErrorCode::malformed, fmt::format("config.json: '{}' is missing", name));
}

std::unexpected<Error> not_supported(std::string_view name, const Json& value) {
  return fail(ErrorCode::unsupported,
              fmt::format("config.json: '{}' is {}, which is not supported", name, shown(value)));
}

// An integer from 1 to `maximum`.
Result<std::optional<uint32_t>> get_count(const JsonObject& config, std::string_view name, uint64_t maximum) {
  const Json* value = find(config, name);
  if (!value) return std::nullopt;
  const auto count = require_integer(config, name, 1, static_cast<int64_t>(maximum));
  if (!count) return wrong_value(name, *value, fmt::format("an integer from 1 to {}", maximum));
  return static_cast<uint32_t>(*count);
}

Result<uint32_t> require_count(const JsonObject& config, std::string_view name, uint64_t maximum) {
  SHOAL_TRY(const auto count, get_count(config, name, maximum));
  if (!count) return missing(name);
  return *count;
}

// A finite number over 0.
Result<std::optional<double>> get_positive(const JsonObject& config, std::string_view name) {
  const Json* value = find(config, name);
  if (!value) return std::nullopt;
  const double number = value->is_number() ? value->to_number<double>() : 0;
  if (!std::isfinite(number) || number <= 0) return wrong_value(name, *value, "a number over 0");
  return number;
}

Result<double> require_positive(const JsonObject& config, std::string_view name) {
  SHOAL_TRY(const auto number, get_positive(config, name));
  if (!number) return missing(name);
  return *number;
}

Result<bool> get_flag(const JsonObject& config, std::string_view name) {
  const Json* value = find(config, name);
  if (!value) return false;
  if (!value->is_bool()) return wrong_value(name, *value, "true or false");
  return value->get_bool();
}

bool is_number(const Json& value, double expected) {
  return value.is_number() && value.to_number<double>() == expected;
}

// Fields of other families' configurations that change the maths. The model is refused unless such a field is
// absent, null, false, 0 or the value that means "nothing".
struct NeutralField {
  std::string_view name;
  std::optional<double> neutral = std::nullopt;
};
constexpr auto kForeignFields = std::to_array<NeutralField>({
    {"sliding_window"},  // qwen3 states one and switches it off: see refuse_unsupported
    {"use_sliding_window"},
    {"attention_chunk_size"},
    {"num_experts"},
    {"num_local_experts"},
    {"n_routed_experts"},
    {"moe_intermediate_size"},
    {"partial_rotary_factor", 1},
    {"rotary_pct", 1},
    {"attn_logit_softcapping"},
    {"final_logit_softcapping"},
    {"query_pre_attn_scalar"},
    {"attention_multiplier", 1},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"logits_scaling", 1},
    {"logit_scale", 1},
    {"scale_depth"},
    {"scale_emb", 1},
    {"dim_model_base"},
    {"pretraining_tp", 1},
    {"clip_qkv"},
    {"use_qk_norm"},
    {"qk_layernorm"},
    {"rope_interleaved"},
    {"rope_interleave"},
    {"no_rope_layers"},
    {"no_rope_layer_interval"},
    {"alibi"},
    {"parallel_attn"},
    {"use_parallel_residual"},
    {"use_bidirectional_attention"},
    {"attention_sink_size"},
    {"quantization_config"},
    {"quantization"},
});

bool is_neutral(const Json& value, const NeutralField& field) {
  if (value.is_bool()) return !value.get_bool();
  if (value.is_array()) return value.get_array().empty();
  return is_number(value, 0) || (field.neutral && is_number(value, *field.neutral));
}

Result<> refuse_unsupported(const JsonObject& config) {
  // Qwen configurations state a window and a flag that switches it on.
  const Json* switched = find(config, "use_sliding_window");
  const bool window_is_off = switched && switched->is_bool() && !switched->get_bool();
  for (const auto& field : kForeignFields) {
    const Json* value = find(config, field.name);
    if (!value || is_neutral(*value, field) || (window_is_off && field.name == "sliding_window")) continue;
    return not_supported(field.name, *value);
  }
  const Json* activation = find(config, "hidden_act");
  if (activation && *activation != "silu" && *activation != "swish")
    return not_supported("hidden_act", *activation);
  if (const Json* types = find(config, "layer_types")) {
    const JsonArray* list = types->if_array();
    const bool full =
        list && std::ranges::all_of(*list, [](const Json& type) { return type == "full_attention"; });
    if (!full) return not_supported("layer_types", *types);
  }
  return {};
}

Result<RopeScaling> read_scaling(const JsonObject& fields, std::string_view name) {
  RopeScaling scaling;
  const Json* kind = find(fields, "rope_type");
  if (!kind) kind = find(fields, "type");
  if (!kind || *kind == "default") return scaling;
  if (*kind != "linear" && *kind != "llama3") return not_supported(fmt::format("{}.rope_type", name), *kind);
  SHOAL_TRY(scaling.factor, require_positive(fields, "factor"));
  scaling.kind = RopeScaling::Kind::linear;
  if (*kind == "linear") return scaling;
  scaling.kind = RopeScaling::Kind::llama3;
  SHOAL_TRY(scaling.low_frequency_factor, require_positive(fields, "low_freq_factor"));
  SHOAL_TRY(scaling.high_frequency_factor, require_positive(fields, "high_freq_factor"));
  SHOAL_TRY(scaling.original_context, require_positive(fields, "original_max_position_embeddings"));
  if (scaling.low_frequency_factor >= scaling.high_frequency_factor) {
    return fail(ErrorCode::malformed,
                fmt::format("config.json: 'low_freq_factor' is {}, not below 'high_freq_factor' {}",
                            scaling.low_frequency_factor, scaling.high_frequency_factor));
  }
  return scaling;
}

// Both styles: `rope_parameters` holds everything, or `rope_scaling` holds the scaling and `rope_theta`
// stands alone.
Result<RopeSpec> read_rope(const JsonObject& config, uint32_t head_dim) {
  constexpr double kDefaultTheta = 10000;
  const std::string_view name = find(config, "rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json* value = find(config, name);
  if (value && !value->is_object()) return wrong_value(name, *value, "an object");
  const JsonObject none;
  const JsonObject& fields = value ? value->get_object() : none;
  for (const auto& [key, inner] : fields) {
    if (inner.is_object()) return not_supported(fmt::format("{}.{}", name, std::string_view(key)), inner);
  }
  if (const Json* partial = find(fields, "partial_rotary_factor"); partial && !is_number(*partial, 1)) {
    return not_supported(fmt::format("{}.partial_rotary_factor", name), *partial);
  }
  SHOAL_TRY(const auto outer_theta, get_positive(config, "rope_theta"));
  SHOAL_TRY(const auto inner_theta, get_positive(fields, "rope_theta"));
  SHOAL_TRY(const RopeScaling scaling, read_scaling(fields, name));
  RopeSpec rope;
  rope.pairs = engine::RopePairs::halves;
  rope.dimensions = head_dim;
  const double theta = inner_theta.value_or(outer_theta.value_or(kDefaultTheta));
  SHOAL_TRY(rope.inverse_frequencies, inverse_frequencies(head_dim, theta, scaling, {}));
  return rope;
}

Result<uint32_t> read_head_dim(const JsonObject& config, const DenseConfig& sizes,
                               const DenseDefaults& defaults) {
  SHOAL_TRY(const auto stated, get_count(config, "head_dim", limits::kMaxHeadDim));
  uint32_t head_dim = 0;
  if (stated) {
    head_dim = *stated;
  } else if (defaults.head_dim && !config.contains("head_dim")) {
    head_dim = *defaults.head_dim;
  } else if (sizes.hidden_size % sizes.query_heads == 0) {
    head_dim = sizes.hidden_size / sizes.query_heads;
  }
  if (head_dim == 0 || head_dim % 2 != 0 || head_dim > limits::kMaxHeadDim) {
    return fail(
        ErrorCode::malformed,
        fmt::format(
            "config.json: 'hidden_size' {} and 'num_attention_heads' {} give no even head size up to {}"
            " (head_dim {})",
            sizes.hidden_size, sizes.query_heads, limits::kMaxHeadDim, head_dim));
  }
  return head_dim;
}

}  // namespace

Result<DenseConfig> read_dense_config(const JsonObject& config, const DenseDefaults& defaults) {
  constexpr double kDefaultEpsilon = 1e-6;
  SHOAL_TRY_VOID(refuse_unsupported(config));
  DenseConfig sizes;
  SHOAL_TRY(sizes.layers, require_count(config, "num_hidden_layers", limits::kMaxLayers));
  SHOAL_TRY(sizes.hidden_size, require_count(config, "hidden_size", limits::kMaxWidth));
  SHOAL_TRY(sizes.feed_forward_width, require_count(config, "intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(sizes.query_heads, require_count(config, "num_attention_heads", limits::kMaxHeads));
  SHOAL_TRY(const auto kv_heads, get_count(config, "num_key_value_heads", limits::kMaxHeads));
  sizes.kv_heads = kv_heads.value_or(defaults.kv_heads.value_or(sizes.query_heads));
  if (sizes.query_heads % sizes.kv_heads != 0) {
    return fail(
        ErrorCode::malformed,
        fmt::format("config.json: 'num_attention_heads' {} is not a multiple of 'num_key_value_heads' {}",
                    sizes.query_heads, sizes.kv_heads));
  }
  SHOAL_TRY(sizes.head_dim, read_head_dim(config, sizes, defaults));
  SHOAL_TRY(const auto context, get_count(config, "max_position_embeddings", limits::kMaxContextTokens));
  sizes.context_tokens = context.value_or(defaults.context_tokens);
  SHOAL_TRY(const auto vocabulary, get_count(config, "vocab_size", limits::kMaxVocabulary));
  sizes.vocabulary_size = vocabulary.value_or(0);
  SHOAL_TRY(const auto epsilon, get_positive(config, "rms_norm_eps"));
  sizes.norm_epsilon = static_cast<float>(epsilon.value_or(kDefaultEpsilon));
  SHOAL_TRY(sizes.tied, get_flag(config, "tie_word_embeddings"));
  SHOAL_TRY(sizes.attention_bias, get_flag(config, "attention_bias"));
  SHOAL_TRY(sizes.mlp_bias, get_flag(config, "mlp_bias"));
  SHOAL_TRY(sizes.rope, read_rope(config, sizes.head_dim));
  return sizes;
}

}  // namespace shoal::model
