// The config.json side of model/config.h: Hugging Face `transformers` configurations.
#include <fmt/format.h>

#include "base/limits.h"
#include "model/config.h"

namespace shoal::model {
namespace {

Result<uint32_t> read_head_dim(Fields& fields, const Sizes& sizes, const SizeDefaults& defaults) {
  SHOAL_TRY(const auto stated, fields.get_count("head_dim", limits::kMaxHeadDim));
  uint32_t head_dim = 0;
  if (stated) {
    head_dim = *stated;
  } else if (defaults.head_dim && !fields.contains("head_dim")) {
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

Result<uint32_t> read_count(Fields& fields, std::string_view name, uint64_t maximum,
                            std::optional<uint32_t> absent) {
  if (!absent) return fields.require_count(name, maximum);
  SHOAL_TRY(const auto count, fields.get_count(name, maximum));
  return count.value_or(*absent);
}

}  // namespace

Result<Sizes> read_sizes(Fields& fields, const SizeDefaults& defaults) {
  Sizes sizes;
  SHOAL_TRY(sizes.layers, read_count(fields, "num_hidden_layers", limits::kMaxLayers, defaults.layers));
  SHOAL_TRY(sizes.hidden_size, read_count(fields, "hidden_size", limits::kMaxWidth, defaults.hidden_size));
  SHOAL_TRY(sizes.query_heads,
            read_count(fields, "num_attention_heads", limits::kMaxHeads, defaults.query_heads));
  SHOAL_TRY(const auto kv_heads, fields.get_count("num_key_value_heads", limits::kMaxHeads));
  const bool null_heads = fields.contains("num_key_value_heads");
  sizes.kv_heads =
      kv_heads.value_or(null_heads ? sizes.query_heads : defaults.kv_heads.value_or(sizes.query_heads));
  if (sizes.query_heads % sizes.kv_heads != 0) {
    return fail(
        ErrorCode::malformed,
        fmt::format("config.json: 'num_attention_heads' {} is not a multiple of 'num_key_value_heads' {}",
                    sizes.query_heads, sizes.kv_heads));
  }
  SHOAL_TRY(sizes.head_dim, read_head_dim(fields, sizes, defaults));
  SHOAL_TRY(const auto context, fields.get_count("max_position_embeddings", limits::kMaxContextTokens));
  sizes.context_tokens = context.value_or(defaults.context_tokens);
  SHOAL_TRY(const auto vocabulary, fields.get_count("vocab_size", limits::kMaxVocabulary));
  sizes.vocabulary_size = vocabulary.value_or(0);
  SHOAL_TRY(const auto epsilon, fields.get_positive("rms_norm_eps"));
  sizes.norm_epsilon = static_cast<float>(epsilon.value_or(defaults.norm_epsilon));
  return sizes;
}

Result<engine::Activation> read_activation(Fields& fields, std::string_view field,
                                           engine::Activation absent) {
  using Kind = engine::Activation::Kind;
  SHOAL_TRY(const auto name, fields.get_text(field));
  if (!name) return absent;
  if (*name == "silu" || *name == "swish") return engine::Activation{.kind = Kind::silu};
  if (*name == "gelu_pytorch_tanh" || *name == "gelu_new") return engine::Activation{.kind = Kind::gelu_tanh};
  return fields.not_supported(field);
}

Result<uint32_t> read_expert_count(Fields& fields, uint32_t absent) {
  SHOAL_TRY(const auto count, fields.get_count("num_experts", limits::kMaxExperts));
  SHOAL_TRY(const auto local, fields.get_count("num_local_experts", limits::kMaxExperts));
  if (count && local && *count != *local)
    return fields.wrong_value("num_local_experts", fmt::format("'num_experts' {}", *count));
  return count ? *count : local.value_or(absent);
}

Result<std::vector<uint32_t>> read_windows(Fields& fields, uint32_t layers, uint32_t absent,
                                           const std::function<bool(uint32_t layer)>& slides) {
  constexpr std::string_view kWindow = "sliding_window";
  const uint32_t otherwise = fields.contains(kWindow) ? 0 : absent;
  SHOAL_TRY(const uint32_t window, fields.get_whole(kWindow, limits::kMaxContextTokens, otherwise));
  SHOAL_TRY(const std::vector<std::string> types, fields.get_texts("layer_types"));
  if (!types.empty() && types.size() != layers)
    return fields.wrong_value("layer_types", fmt::format("a list of {} types", layers));
  std::vector<uint32_t> windows(layers);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    bool sliding = slides(layer);
    if (!types.empty()) {
      sliding = types[layer] == "sliding_attention";
      if (!sliding && types[layer] != "full_attention") return fields.not_supported("layer_types");
      if (sliding && window == 0) return fields.wrong_value(kWindow, "what layer_types needs, over 0");
    }
    windows[layer] = sliding ? window : 0;
  }
  return windows;
}

Result<std::vector<uint32_t>> read_qwen_windows(Fields& fields, uint32_t layers, bool counts_layers) {
  SHOAL_TRY(const bool used, fields.get_flag("use_sliding_window", false));
  uint32_t first = 0;
  if (counts_layers) {
    SHOAL_TRY(first, fields.get_whole("max_window_layers", limits::kMaxWidth, 28));
  }
  if (used) return read_windows(fields, layers, 4096, [&](uint32_t layer) { return layer >= first; });
  fields.get("sliding_window");  // stated, and switched off
  return std::vector<uint32_t>(layers);
}

}  // namespace shoal::model
