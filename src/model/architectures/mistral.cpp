// Mistral (https://arxiv.org/abs/2310.06825): Llama's block with a window on all layers, on some (Ministral)
// or on none; Mixtral (https://arxiv.org/abs/2401.04088) has a mixture of experts in it. Also the text models
// inside Mistral 3's multimodal checkpoints. In GGUF all of them are "llama" (llama.cpp in this folder), or
// "mistral3".
#include <algorithm>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

// What the members of the family differ in.
struct Family {
  SizeDefaults sizes;
  double theta = 10000;
  uint32_t window = 0;                      // where sliding_window is absent
  std::optional<bool> tied = std::nullopt;  // stated outside; nullopt: the configuration says, or not
};

// The model but for its feed-forwards.
struct Body {
  Sizes sizes;
  uint32_t width = 0;
  engine::Activation activation;
  DecoderSpec spec;
};

Result<Body> read_body(Fields& fields, const Checkpoint& checkpoint, const Family& family) {
  Body body;
  SHOAL_TRY(const Sizes sizes, read_sizes(fields, family.sizes));
  SHOAL_TRY(const RopeSpec rope, read_rope(fields, {.head_dim = sizes.head_dim,
                                                    .context_tokens = sizes.context_tokens,
                                                    .default_theta = family.theta}));
  SHOAL_TRY(const std::vector<uint32_t> windows,
            read_windows(fields, sizes.layers, family.window, [](uint32_t) { return true; }));
  SHOAL_TRY(body.width, fields.require_count("intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(body.activation, read_activation(fields));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  const std::string model = find_model_prefix(checkpoint);
  body.sizes = sizes;
  body.spec = make_spec(fields.architecture(), sizes);
  name_model(body.spec, family.tied.value_or(tied), model);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i, model);
    name_layer_norms(body.spec.layers[i], prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_attention(attention, prefix, false, false);
    attention.window = windows[i];
    body.spec.layers[i].mixer = std::move(attention);
  }
  return body;
}

Result<DecoderSpec> read_dense(Fields& fields, const Checkpoint& checkpoint, const Family& family) {
  SHOAL_TRY(Body body, read_body(fields, checkpoint, family));
  const std::string model = find_model_prefix(checkpoint);
  for (uint32_t i = 0; i < body.sizes.layers; ++i)
    body.spec.layers[i].feed_forward =
        dense_feed_forward(layer_prefix(i, model) + "mlp.", body.width, body.activation);
  return std::move(body.spec);
}

Result<DecoderSpec> read_mistral(Fields& fields, const Checkpoint& checkpoint) {
  return read_dense(fields, checkpoint, {.sizes = {.kv_heads = 8, .context_tokens = 131072}, .window = 4096});
}

// Beyond the original context its queries grow by 1 + llama_4_scaling_beta * ln(1 + position / original),
// which nothing here computes: the model ends there.
Result<DecoderSpec> read_ministral3_text(Fields& fields, const Checkpoint& checkpoint,
                                         std::optional<bool> tied) {
  SHOAL_TRY(auto rope, fields.get_object("rope_parameters"));
  if (!rope) return fields.missing("rope_parameters");
  SHOAL_TRY(const auto original,
            rope->get_count("original_max_position_embeddings", limits::kMaxContextTokens));
  SHOAL_TRY(
      DecoderSpec spec,
      read_dense(fields, checkpoint,
                 {.sizes = {.kv_heads = 8, .head_dim = 128, .context_tokens = 262144, .norm_epsilon = 1e-5},
                  .tied = tied}));
  spec.context_tokens = std::min(spec.context_tokens, original.value_or(spec.context_tokens));
  return spec;
}

Result<DecoderSpec> read_ministral3(Fields& fields, const Checkpoint& checkpoint) {
  return read_ministral3_text(fields, checkpoint, {});
}

// The text model of a multimodal checkpoint; pictures are not for here.
Result<DecoderSpec> read_mistral3(Fields& fields, const Checkpoint& checkpoint) {
  SHOAL_TRY(auto text, fields.get_object("text_config"));
  if (!text) return fields.missing("text_config");
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", true));
  SHOAL_TRY(const auto kind, text->get_text("model_type"));
  text->get("tie_word_embeddings");  // the outer one counts
  Result<DecoderSpec> spec;
  if (kind.value_or("mistral") == "mistral") {
    spec = read_dense(*text, checkpoint,
                      {.sizes = {.kv_heads = 8, .context_tokens = 131072}, .window = 4096, .tied = tied});
  } else if (*kind == "ministral3") {
    spec = read_ministral3_text(*text, checkpoint, tied);
  } else {
    return text->not_supported("model_type");
  }
  if (!spec) return spec;
  SHOAL_TRY_VOID(text->refuse_unused());
  spec->ignored_prefixes = multimodal_prefixes();
  return spec;
}

Result<DecoderSpec> read_mixtral(Fields& fields, const Checkpoint& checkpoint) {
  const Family family = {.sizes = {.kv_heads = 8, .context_tokens = 131072, .norm_epsilon = 1e-5},
                         .theta = 1e6};
  SHOAL_TRY(Body body, read_body(fields, checkpoint, family));
  SHOAL_TRY(const uint32_t experts, read_expert_count(fields, 8));
  SHOAL_TRY(const auto used, fields.get_count("num_experts_per_tok", experts));
  MixtureSpec mixture;
  mixture.router_op = {.expert_count = experts, .used = used.value_or(2), .normalise = true};
  mixture.width = body.width;
  mixture.activation = body.activation;
  if (mixture.router_op.used > experts) return fields.wrong_value("num_local_experts", "at least 2");
  for (uint32_t i = 0; i < body.sizes.layers; ++i) {
    MixtureSpec layer = mixture;
    std::string prefix = layer_prefix(i) + "block_sparse_moe.";
    if (!checkpoint.find(prefix + "gate.weight")) prefix = layer_prefix(i) + "mlp.";
    layer.router = TensorRef(prefix + "gate.weight");
    name_experts(layer, prefix, body.sizes.hidden_size, checkpoint, {.gate = "w1", .up = "w3", .down = "w2"});
    body.spec.layers[i].feed_forward = std::move(layer);
  }
  return std::move(body.spec);
}

}  // namespace

const Architecture kMistral{"mistral", "MistralForCausalLM",  "", read_mistral,
                            nullptr,   "MinistralForCausalLM"};
const Architecture kMinistral{"ministral", "MinistralForCausalLM", "", read_mistral, nullptr};
const Architecture kMinistral3{"ministral3", "Ministral3ForCausalLM", "", read_ministral3, nullptr};
const Architecture kMistral3{"mistral3", "Mistral3ForConditionalGeneration", "", read_mistral3, nullptr};
const Architecture kMixtral{"mixtral", "MixtralForCausalLM", "", read_mixtral, nullptr};

}  // namespace shoal::model
