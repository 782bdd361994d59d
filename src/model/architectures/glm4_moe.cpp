// GLM-4.5 and 4.6 (https://arxiv.org/abs/2508.06471): grouped-query attention with rotary positions on half
// of each head and, in the larger models, norms of queries and keys; experts chosen as DeepSeek-V3 does.
//
// Layers after the last one predict further tokens; a GGUF counts them in block_count.
#include <algorithm>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/experts.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

// What the layers of one model share.
struct Layers {
  RopeSpec rope;
  engine::Activation activation;
  uint32_t dense_width = 0;
  engine::RouterOp router;
  uint32_t expert_width = 0;
  uint32_t shared_width = 0;
  uint32_t leading_dense = 0;
};

Result<> read_mixture(Fields& fields, Layers& layers) {
  SHOAL_TRY_VOID(fields.expect_text("scoring_func", "sigmoid"));
  SHOAL_TRY_VOID(fields.expect_text("topk_method", "noaux_tc"));
  SHOAL_TRY(layers.router, read_sigmoid_router(fields, {.experts = 128, .used = 8}));
  SHOAL_TRY(const auto width, fields.get_count("moe_intermediate_size", limits::kMaxWidth));
  layers.expert_width = width.value_or(1408);
  SHOAL_TRY(const uint32_t shared, fields.get_whole("n_shared_experts", limits::kMaxExperts,
                                                    fields.contains("n_shared_experts") ? 0 : 1));
  SHOAL_TRY(layers.shared_width, shared_experts_width(shared, layers.expert_width));
  SHOAL_TRY(layers.leading_dense, fields.get_whole("first_k_dense_replace", limits::kMaxLayers, 1));
  return {};
}

FeedForwardSpec feed_forward(const Layers& layers, uint32_t layer, const std::string& prefix,
                             uint32_t hidden_size, const Checkpoint& checkpoint) {
  if (layer < layers.leading_dense) return dense_feed_forward(prefix, layers.dense_width, layers.activation);
  MixtureSpec mixture;
  mixture.router_op = layers.router;
  mixture.width = layers.expert_width;
  mixture.activation = layers.activation;
  mixture.router = TensorRef(prefix + "gate.weight");
  mixture.choice_bias = TensorRef(prefix + "gate.e_score_correction_bias");
  name_experts(mixture, prefix, hidden_size, checkpoint);
  if (layers.shared_width != 0)
    mixture.shared = dense_feed_forward(prefix + "shared_experts.", layers.shared_width, layers.activation);
  return mixture;
}

Result<DecoderSpec> read_config(Fields& fields, const Checkpoint& checkpoint) {
  SHOAL_TRY(const Sizes sizes,
            read_sizes(fields, {.kv_heads = 8, .context_tokens = 131072, .norm_epsilon = 1e-5}));
  Layers layers;
  SHOAL_TRY(layers.rope, read_rope(fields, {.head_dim = sizes.head_dim,
                                            .context_tokens = sizes.context_tokens,
                                            .partial_factor = 0.5}));
  SHOAL_TRY(layers.activation, read_activation(fields));
  SHOAL_TRY(layers.dense_width, fields.require_count("intermediate_size", limits::kMaxWidth));
  SHOAL_TRY_VOID(read_mixture(fields, layers));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  SHOAL_TRY(const bool biases, fields.get_flag("attention_bias", false));
  SHOAL_TRY(const bool head_norms, fields.get_flag("use_qk_norm", false));
  SHOAL_TRY(const uint32_t predictors, fields.get_whole("num_nextn_predict_layers", limits::kMaxLayers, 0));
  DecoderSpec spec = make_spec(fields.architecture(), sizes);
  name_model(spec, tied);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, layers.rope);
    name_attention(attention, prefix, biases, false);
    if (head_norms) {
      attention.query_norm = TensorRef(prefix + "self_attn.q_norm.weight");
      attention.key_norm = TensorRef(prefix + "self_attn.k_norm.weight");
    }
    layer.mixer = std::move(attention);
    layer.feed_forward = feed_forward(layers, i, prefix + "mlp.", sizes.hidden_size, checkpoint);
  }
  for (uint32_t i = 0; i < std::max(predictors, 1U); ++i)
    spec.ignored_prefixes.push_back(layer_prefix(sizes.layers + i));
  return spec;
}

Result<Layers> read_gguf_layers(Metadata& metadata, const Sizes& sizes) {
  Layers layers;
  SHOAL_TRY(layers.rope,
            read_rope(metadata, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  metadata.pass("rope.dimension_sections");  // text has the same position in each
  SHOAL_TRY(layers.dense_width, metadata.require_count("feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(layers.router, read_grouped_router(metadata, engine::RouterOp::Score::sigmoid));
  SHOAL_TRY(layers.expert_width, metadata.require_count("expert_feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(const uint32_t shared, metadata.get_whole("expert_shared_count", limits::kMaxExperts, 0));
  SHOAL_TRY(layers.shared_width, shared_experts_width(shared, layers.expert_width));
  SHOAL_TRY(layers.leading_dense, metadata.get_whole("leading_dense_block_count", limits::kMaxLayers, 0));
  return layers;
}

FeedForwardSpec gguf_feed_forward(const Layers& layers, uint32_t layer, const std::string& prefix,
                                  uint32_t hidden_size, const Checkpoint& checkpoint) {
  if (layer < layers.leading_dense)
    return gguf_dense_feed_forward(prefix, layers.dense_width, {}, checkpoint);
  return gguf_mixture({.router = layers.router,
                       .width = layers.expert_width,
                       .shared_width = layers.shared_width,
                       .may_have_choice_bias = true},
                      prefix, hidden_size, checkpoint);
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(Sizes sizes, read_sizes(metadata));
  std::vector<std::string> predictors;
  SHOAL_TRY(sizes.layers, read_main_layers(metadata, sizes.layers, predictors));
  SHOAL_TRY(const Layers layers, read_gguf_layers(metadata, sizes));
  const Checkpoint& checkpoint = metadata.checkpoint();
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  spec.ignored_prefixes = std::move(predictors);
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    layer.mixer_norm = TensorRef(prefix + "attn_norm.weight");
    layer.feed_forward_norm = TensorRef(prefix + "post_attention_norm.weight");
    AttentionSpec attention = make_attention(sizes, layers.rope);
    name_gguf_attention(attention, prefix, checkpoint);
    if (checkpoint.find(prefix + "attn_q_norm.weight")) {
      attention.query_norm = TensorRef(prefix + "attn_q_norm.weight");
      attention.key_norm = TensorRef(prefix + "attn_k_norm.weight");
    }
    layer.mixer = std::move(attention);
    layer.feed_forward = gguf_feed_forward(layers, i, prefix, sizes.hidden_size, checkpoint);
  }
  return spec;
}

}  // namespace

const Architecture kGlm4Moe{"glm4_moe", "Glm4MoeForCausalLM", "glm4moe", read_config, read_gguf};

}  // namespace shoal::model
