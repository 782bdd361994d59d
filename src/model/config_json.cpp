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

}  // namespace

Result<Sizes> read_sizes(Fields& fields, const SizeDefaults& defaults) {
  Sizes sizes;
  SHOAL_TRY(sizes.layers, fields.require_count("num_hidden_layers", limits::kMaxLayers));
  SHOAL_TRY(sizes.hidden_size, fields.require_count("hidden_size", limits::kMaxWidth));
  SHOAL_TRY(sizes.query_heads, fields.require_count("num_attention_heads", limits::kMaxHeads));
  SHOAL_TRY(const auto kv_heads, fields.get_count("num_key_value_heads", limits::kMaxHeads));
  sizes.kv_heads = kv_heads.value_or(defaults.kv_heads.value_or(sizes.query_heads));
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

}  // namespace shoal::model
