#include "model/fields.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"

namespace shoal::model {
namespace {

std::string shown(const Json& value) {
  constexpr size_t kShown = 80;
  std::string text = to_text(value);
  if (text.size() > kShown) text = text.substr(0, kShown) + "…";
  return text;
}

// Fields that change the maths in some family. Refused where the family's page has not read them, unless
// absent, null, false, 0, empty or the value that means "nothing".
struct NeutralField {
  std::string_view name;
  std::optional<double> neutral = std::nullopt;
};
constexpr auto kMathematicalFields = std::to_array<NeutralField>({
    {"activation_sparsity_pattern"},
    {"alibi"},
    {"altup_num_inputs"},
    {"attention_bias"},
    {"attention_chunk_size"},
    {"attention_in_multiplier", 1},
    {"attention_k_eq_v"},
    {"attention_logit_cap"},
    {"attention_multiplier", 1},
    {"attention_out_multiplier", 1},
    {"attention_sink_size"},
    {"attention_value_scale", 1},
    {"attn_layer_period"},
    {"attn_logit_softcapping"},
    {"attn_output_gate"},
    {"attn_output_multiplier", 1},
    {"attn_scale"},
    {"attn_temperature_tuning"},
    {"block_types"},
    {"clip_qkv"},
    {"cross_attention_layers"},
    {"dim_model_base"},
    {"embedding_multiplier", 1},
    {"embedding_multiplier_scale", 1},
    {"embedding_scale", 1},
    {"enable_moe_block"},
    {"expert_layer_period"},
    {"final_logit_softcapping"},
    {"first_k_dense_replace"},
    {"floor_scale"},
    {"full_attention_interval"},
    {"global_head_dim"},
    {"global_rope_theta"},
    {"hidden_size_per_layer_input"},
    {"index_topk"},
    {"interleave_moe_layer_step"},
    {"is_encoder_decoder"},
    {"key_multiplier", 1},
    {"kv_lora_rank"},
    {"laurel_rank"},
    {"layer_types"},
    {"layers_block_type"},
    {"learned_pos_emb"},
    {"linear_num_value_heads"},
    {"llama_4_scaling"},
    {"lm_head_bias"},
    {"lm_head_multiplier", 1},
    {"local_rope_theta"},
    {"logit_scale", 1},
    {"logits_scaling", 1},
    {"logits_soft_cap"},
    {"mamba_d_state"},
    {"mamba_num_heads"},
    {"mlp_bias"},
    {"mlp_multipliers"},
    {"mlp_only_layers"},
    {"moe_intermediate_size"},
    {"moe_layer_interval"},
    {"moe_num_experts"},
    {"moe_topk"},
    {"multi_query"},
    {"n_routed_experts"},
    {"n_shared_experts"},
    {"new_decoder_architecture"},
    {"no_rope_layer_interval"},
    {"no_rope_layers"},
    {"num_experts"},
    {"num_global_key_value_heads"},
    {"num_kv_shared_layers"},
    {"num_local_experts"},
    {"output_multiplier_scale", 1},
    {"parallel_attn"},
    {"partial_rotary_factor", 1},
    {"partial_rotary_factors"},
    {"per_layer_config"},
    {"pretraining_tp", 1},
    {"q_lora_rank"},
    {"qk_layernorm"},
    {"qk_ln"},
    {"qk_norm"},
    {"qkv_bias"},
    {"query_pre_attn_scalar"},
    {"residual_multiplier", 1},
    {"rope_interleave"},
    {"rope_interleaved"},
    {"rope_local_base_freq"},
    {"rope_parameters"},
    {"rope_scaling"},
    {"rotary_pct", 1},
    {"router_logit_softcapping"},
    {"scale_depth"},
    {"scale_emb", 1},
    {"scale_embedding"},
    {"shared_expert_intermediate_size"},
    {"shared_intermediate_size"},
    {"sliding_window"},
    {"softmax_scale"},
    {"ssm_state_size"},
    {"swiglu_limit"},
    {"use_bidirectional_attention"},
    {"use_mup"},
    {"use_parallel_residual"},
    {"use_qk_norm"},
    {"use_qkv_bias"},
    {"use_sliding_window"},
    {"width_multiplier", 1},
    {"zero_expert_num"},
});

bool is_neutral(const Json& value, const NeutralField& field) {
  if (value.is_bool()) return !value.get_bool();
  if (value.is_array())
    return std::ranges::all_of(value.get_array(), [](const Json& type) { return type == "full_attention"; });
  if (value.is_object()) return value.get_object().empty();
  if (!value.is_number()) return false;
  const double number = value.to_number<double>();
  return number == 0 || (field.neutral && number == *field.neutral);
}

}  // namespace

Fields::Fields(const JsonObject& object, std::string_view architecture, std::string_view path)
    : object_(&object), architecture_(architecture), path_(path) {}

std::string Fields::shown_name(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

std::unexpected<Error> Fields::missing(std::string_view name) const {
  return fail(ErrorCode::malformed,
              fmt::format("config.json: '{}' is missing, which {} needs", shown_name(name), architecture_));
}

std::unexpected<Error> Fields::not_supported(std::string_view name) const {
  const Json* value = find(*object_, name);
  return fail(ErrorCode::unsupported,
              fmt::format("config.json: '{}' is {}, which is not supported for {}", shown_name(name),
                          value ? shown(*value) : "missing", architecture_));
}

std::unexpected<Error> Fields::wrong_value(std::string_view name, std::string_view expected) const {
  const Json* value = find(*object_, name);
  return fail(ErrorCode::malformed,
              fmt::format("config.json: '{}' is {}, but must be {} ({})", shown_name(name),
                          value ? shown(*value) : "missing", expected, architecture_));
}

const Json* Fields::get(std::string_view name) {
  read_.emplace(name);
  return find(*object_, name);
}

Result<std::optional<uint32_t>> Fields::get_count(std::string_view name, uint64_t maximum) {
  if (!get(name)) return std::nullopt;
  const auto count = require_integer(*object_, name, 1, static_cast<int64_t>(maximum));
  if (!count) return wrong_value(name, fmt::format("an integer from 1 to {}", maximum));
  return static_cast<uint32_t>(*count);
}

Result<uint32_t> Fields::require_count(std::string_view name, uint64_t maximum) {
  SHOAL_TRY(const auto count, get_count(name, maximum));
  if (!count) return missing(name);
  return *count;
}

Result<uint32_t> Fields::get_whole(std::string_view name, uint64_t maximum, uint32_t absent) {
  if (!get(name)) return absent;
  const auto count = require_integer(*object_, name, 0, static_cast<int64_t>(maximum));
  if (!count) return wrong_value(name, fmt::format("an integer from 0 to {}", maximum));
  return static_cast<uint32_t>(*count);
}

Result<std::optional<double>> Fields::get_positive(std::string_view name) {
  const Json* value = get(name);
  if (!value) return std::nullopt;
  const double number = value->is_number() ? value->to_number<double>() : 0;
  if (!std::isfinite(number) || number <= 0) return wrong_value(name, "a number over 0");
  return number;
}

Result<double> Fields::require_positive(std::string_view name) {
  SHOAL_TRY(const auto number, get_positive(name));
  if (!number) return missing(name);
  return *number;
}

Result<double> Fields::get_number(std::string_view name, double absent) {
  const Json* value = get(name);
  if (!value) return absent;
  const double number = value->is_number() ? value->to_number<double>() : -1;
  if (!std::isfinite(number) || number < 0) return wrong_value(name, "a number from 0");
  return number;
}

Result<bool> Fields::get_flag(std::string_view name, bool absent) {
  const Json* value = get(name);
  if (!value) return absent;
  if (!value->is_bool()) return wrong_value(name, "true or false");
  return value->get_bool();
}

Result<std::optional<std::string>> Fields::get_text(std::string_view name) {
  const Json* value = get(name);
  if (!value) return std::nullopt;
  if (!value->is_string()) return wrong_value(name, "a string");
  return std::string(value->get_string());
}

Result<std::vector<std::string>> Fields::get_texts(std::string_view name) {
  std::vector<std::string> texts;
  const Json* value = get(name);
  if (!value) return texts;
  if (!value->is_array()) return wrong_value(name, "a list of strings");
  for (const Json& text : value->get_array()) {
    if (!text.is_string()) return wrong_value(name, "a list of strings");
    texts.emplace_back(text.get_string());
  }
  return texts;
}

Result<std::vector<double>> Fields::get_numbers(std::string_view name) {
  std::vector<double> numbers;
  const Json* value = get(name);
  if (!value) return numbers;
  if (!value->is_array()) return wrong_value(name, "a list of numbers");
  for (const Json& number : value->get_array()) {
    if (!number.is_number() || !std::isfinite(number.to_number<double>()))
      return wrong_value(name, "a list of numbers");
    numbers.push_back(number.to_number<double>());
  }
  return numbers;
}

Result<std::vector<uint32_t>> Fields::get_wholes(std::string_view name, uint64_t maximum) {
  SHOAL_TRY(const std::vector<double> numbers, get_numbers(name));
  std::vector<uint32_t> wholes;
  for (const double number : numbers) {
    if (number < 0 || number > static_cast<double>(maximum) || number != std::floor(number))
      return wrong_value(name, fmt::format("a list of integers from 0 to {}", maximum));
    wholes.push_back(static_cast<uint32_t>(number));
  }
  return wholes;
}

Result<std::optional<Fields>> Fields::get_object(std::string_view name) {
  const Json* value = get(name);
  if (!value) return std::nullopt;
  if (!value->is_object()) return wrong_value(name, "an object");
  return Fields(value->get_object(), architecture_, shown_name(name));
}

Result<> Fields::expect_text(std::string_view name, std::string_view only) {
  const Json* value = get(name);
  if (value && !(value->is_string() && value->get_string() == only)) return not_supported(name);
  return {};
}

Result<> Fields::expect_flag(std::string_view name, bool only) {
  SHOAL_TRY(const bool flag, get_flag(name, only));
  if (flag != only) return not_supported(name);
  return {};
}

Result<> Fields::refuse_unused() const {
  // Some configurations state a window and a flag that switches it off.
  const Json* windows = find(*object_, "use_sliding_window");
  const bool windows_are_off = windows && windows->is_bool() && !windows->get_bool();
  for (const auto& field : kMathematicalFields) {
    const Json* value = find(*object_, field.name);
    if (!value || read_.contains(field.name) || is_neutral(*value, field)) continue;
    if (windows_are_off && field.name == "sliding_window") continue;
    return not_supported(field.name);
  }
  if (const Json* causal = find(*object_, "is_causal"); causal && *causal == false)
    return not_supported("is_causal");
  for (const auto& [name, value] : *object_) {
    const bool is_part = !path_.empty() && value.is_object();  // a whole section that nobody read
    if (!is_part || value.get_object().empty() || name == "id2label" || name == "label2id") continue;
    if (!read_.contains(std::string_view(name))) return not_supported(name);
  }
  return {};
}

}  // namespace shoal::model
