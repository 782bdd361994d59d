// The architecture "deepseek2" of GGUF: DeepSeek-V2, V3, R1, Kimi K2 and their relatives. The joint matrix of
// keys and values is split per head, keys transposed; key_length and value_length are then those of the
// latents, and those of the heads are called key_length_mla and value_length_mla. Older files keep the matrix
// whole.
#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/architectures/latent.h"
#include "model/config.h"
#include "model/experts.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

struct Layers {
  LatentAttentionSpec attention;  // sizes, no names
  uint32_t dense_width = 0;
  std::optional<engine::RouterOp> router;  // none: all layers are dense
  uint32_t expert_width = 0;
  uint32_t shared_width = 0;
  uint32_t leading_dense = 0;
};

Result<Sizes> read_latent_sizes(Metadata& metadata) {
  Sizes sizes;
  SHOAL_TRY(sizes.layers, metadata.require_count("block_count", limits::kMaxLayers));
  SHOAL_TRY(sizes.hidden_size, metadata.require_count("embedding_length", limits::kMaxWidth));
  SHOAL_TRY(sizes.query_heads, metadata.require_count("attention.head_count", limits::kMaxHeads));
  metadata.pass("attention.head_count_kv");
  SHOAL_TRY(sizes.context_tokens, metadata.require_count("context_length", limits::kMaxContextTokens));
  SHOAL_TRY(const double epsilon, metadata.require_positive("attention.layer_norm_rms_epsilon"));
  sizes.norm_epsilon = static_cast<float>(epsilon);
  return sizes;
}

Result<LatentAttentionSpec> read_attention(Metadata& metadata, const Sizes& sizes) {
  LatentAttentionSpec attention;
  attention.heads = sizes.query_heads;
  attention.norm_epsilon = kLatentNormEpsilon;
  SHOAL_TRY(attention.query_rank, metadata.get_whole("attention.q_lora_rank", limits::kMaxWidth, 0));
  SHOAL_TRY(attention.latent_rank, metadata.require_count("attention.kv_lora_rank", limits::kMaxHeadDim));
  SHOAL_TRY(const uint32_t key_length, metadata.require_count("attention.key_length", limits::kMaxHeadDim));
  SHOAL_TRY(const uint32_t value_length,
            metadata.require_count("attention.value_length", limits::kMaxHeadDim));
  SHOAL_TRY(const auto head_keys, metadata.get_count("attention.key_length_mla", limits::kMaxHeadDim));
  SHOAL_TRY(const auto head_values, metadata.get_count("attention.value_length_mla", limits::kMaxHeadDim));
  const uint32_t query_dim = head_keys.value_or(key_length);
  attention.value_dim = head_values.value_or(value_length);
  SHOAL_TRY(const uint32_t rotated, metadata.require_count("rope.dimension_count", limits::kMaxHeadDim));
  if (rotated >= query_dim) {
    return fail(ErrorCode::malformed, fmt::format("'{}' is {}, but keys have {} values",
                                                  metadata.name("rope.dimension_count"), rotated, query_dim));
  }
  attention.nope_dim = query_dim - rotated;
  SHOAL_TRY(attention.rope, read_rope(metadata, {.pairs = engine::RopePairs::interleaved,
                                                 .head_dim = rotated,
                                                 .context_tokens = sizes.context_tokens,
                                                 .log_multiplier_is_for_scores = true}));
  SHOAL_TRY(const double score_factor, read_yarn_score_factor(metadata));
  attention.scale = static_cast<float>(score_factor / std::sqrt(query_dim));
  return attention;
}

LatentAttentionSpec named_attention(const Layers& layers, const std::string& prefix,
                                    const Checkpoint& checkpoint) {
  LatentAttentionSpec attention = layers.attention;
  if (attention.query_rank == 0) {
    attention.query = TensorRef(prefix + "attn_q.weight");
  } else {
    attention.query_down = TensorRef(prefix + "attn_q_a.weight");
    attention.query_down_norm = TensorRef(prefix + "attn_q_a_norm.weight");
    attention.query_up = TensorRef(prefix + "attn_q_b.weight");
  }
  attention.latent_down = TensorRef(prefix + "attn_kv_a_mqa.weight");
  attention.latent_norm = TensorRef(prefix + "attn_kv_a_norm.weight");
  attention.output = TensorRef(prefix + "attn_output.weight");
  if (checkpoint.find(prefix + "attn_k_b.weight")) {
    name_split_up(attention, prefix + "attn_k_b.weight", prefix + "attn_v_b.weight", checkpoint);
  } else {
    name_joint_up(attention, prefix + "attn_kv_b.weight", checkpoint);
  }
  return attention;
}

Result<Layers> read_layers(Metadata& metadata, const Sizes& sizes) {
  Layers layers;
  SHOAL_TRY(layers.attention, read_attention(metadata, sizes));
  SHOAL_TRY(layers.dense_width, metadata.require_count("feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(const uint32_t experts, metadata.get_whole("expert_count", limits::kMaxExperts, 0));
  if (experts != 0) {
    SHOAL_TRY(layers.router, read_grouped_router(metadata, engine::RouterOp::Score::softmax));
  }
  SHOAL_TRY(layers.expert_width, metadata.get_whole("expert_feed_forward_length", limits::kMaxWidth, 0));
  SHOAL_TRY(const uint32_t shared, metadata.get_whole("expert_shared_count", limits::kMaxExperts, 0));
  SHOAL_TRY(layers.shared_width, shared_experts_width(shared, layers.expert_width));
  SHOAL_TRY(layers.leading_dense, metadata.get_whole("leading_dense_block_count", limits::kMaxLayers, 0));
  if (experts != 0 && layers.expert_width == 0 && layers.leading_dense < sizes.layers)
    return metadata.missing("expert_feed_forward_length");
  return layers;
}

FeedForwardSpec feed_forward(const Layers& layers, uint32_t layer, const std::string& prefix,
                             uint32_t hidden_size, const Checkpoint& checkpoint) {
  if (!layers.router || layer < layers.leading_dense)
    return gguf_dense_feed_forward(prefix, layers.dense_width, {}, checkpoint);
  return gguf_mixture({.router = *layers.router,
                       .width = layers.expert_width,
                       .shared_width = layers.shared_width,
                       .may_have_choice_bias = true},
                      prefix, hidden_size, checkpoint);
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(Sizes sizes, read_latent_sizes(metadata));
  std::vector<std::string> predictors;
  SHOAL_TRY(sizes.layers, read_main_layers(metadata, sizes.layers, predictors));
  SHOAL_TRY(const Layers layers, read_layers(metadata, sizes));
  const Checkpoint& checkpoint = metadata.checkpoint();
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  spec.ignored_prefixes = std::move(predictors);
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_gguf_layer_norms(layer, prefix);
    layer.mixer = named_attention(layers, prefix, checkpoint);
    layer.feed_forward = feed_forward(layers, i, prefix, sizes.hidden_size, checkpoint);
    // Some files hold the matrix both ways.
    if (checkpoint.find(prefix + "attn_k_b.weight"))
      spec.ignored_prefixes.push_back(prefix + "attn_kv_b.weight");
  }
  return spec;
}

}  // namespace

const Architecture kDeepseek2Gguf{"", "", "deepseek2", nullptr, read_gguf};

}  // namespace shoal::model
