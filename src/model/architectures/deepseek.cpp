// DeepSeek-V2 (https://arxiv.org/abs/2405.04434), DeepSeek-V3 and R1 (https://arxiv.org/abs/2412.19437) and
// Kimi K2: latent attention, leading dense layers, then mixtures of experts with shared ones. V2 weighs its
// experts by a softmax, V3 by sigmoids with a bias that only chooses.
//
// The epsilon of the norms inside the attention, what absent fields mean, and that V2 does not renormalise
// its weights whatever norm_topk_prob says, are as in `transformers`.
#include <algorithm>
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

// What the layers of one model share.
struct Layers {
  LatentAttentionSpec attention;  // sizes, no names
  bool attention_bias = false;
  bool mlp_bias = false;
  engine::Activation activation;
  uint32_t dense_width = 0;
  std::optional<engine::RouterOp> router;  // none: all layers are dense
  uint32_t expert_width = 0;
  uint32_t shared_width = 0;
  uint32_t leading_dense = 0;
  uint32_t every = 1;  // of the layers after the leading ones, those whose index it divides are mixtures

  bool is_mixture(uint32_t layer) const { return router && layer >= leading_dense && layer % every == 0; }
};

struct Family {
  bool is_v2 = false;
  SizeDefaults sizes;
  GroupedRouterDefaults router;
  uint32_t expert_width = 0, shared_experts = 0, leading_dense = 0;
};

const Family kV2{.is_v2 = true,
                 .sizes = {.context_tokens = 2048},
                 .router = {.experts = 64},
                 .expert_width = 1407,
                 .shared_experts = 2,
                 .leading_dense = 0};
const Family kV3{.is_v2 = false,
                 .sizes = {.context_tokens = 4096},
                 .router = {.experts = 256, .used = 8, .groups = 8, .used_groups = 4, .scale = 2.5},
                 .expert_width = 2048,
                 .shared_experts = 1,
                 .leading_dense = 3};

// Null means none; absent, the default.
Result<uint32_t> read_count_or_none(Fields& fields, std::string_view name, uint64_t maximum,
                                    uint32_t absent) {
  return fields.get_whole(name, maximum, fields.contains(name) ? 0 : absent);
}

Result<LatentAttentionSpec> read_attention(Fields& fields, const Family& family, uint32_t rotated,
                                           const Sizes& sizes) {
  LatentAttentionSpec attention;
  attention.heads = sizes.query_heads;
  attention.norm_epsilon = kLatentNormEpsilon;
  SHOAL_TRY(attention.query_rank, read_count_or_none(fields, "q_lora_rank", limits::kMaxWidth, 1536));
  SHOAL_TRY(const auto latent_rank, fields.get_count("kv_lora_rank", limits::kMaxHeadDim));
  SHOAL_TRY(const auto nope_dim, fields.get_count("qk_nope_head_dim", limits::kMaxHeadDim));
  SHOAL_TRY(const auto value_dim, fields.get_count("v_head_dim", limits::kMaxHeadDim));
  attention.latent_rank = latent_rank.value_or(512);
  attention.nope_dim = nope_dim.value_or(128);
  attention.value_dim = value_dim.value_or(128);
  SHOAL_TRY(const bool interleaved, fields.get_flag("rope_interleave", true));
  if (family.is_v2 && !interleaved) return fields.not_supported("rope_interleave");
  const auto pairs = interleaved ? engine::RopePairs::interleaved : engine::RopePairs::halves;
  SHOAL_TRY(attention.rope,
            read_rope(fields, {.pairs = pairs, .head_dim = rotated, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const double score_factor, read_yarn_score_factor(fields));
  attention.scale = static_cast<float>(score_factor / std::sqrt(attention.nope_dim + rotated));
  return attention;
}

// V2's router: a softmax over all experts; "greedy" takes the best, "group_limited_greedy" the best of the
// groups whose maximum is best.
Result<engine::RouterOp> read_softmax_router(Fields& fields, const GroupedRouterDefaults& defaults) {
  engine::RouterOp router;
  SHOAL_TRY_VOID(fields.expect_text("scoring_func", "softmax"));
  SHOAL_TRY(const auto method, fields.get_text("topk_method"));
  SHOAL_TRY(const auto experts, fields.get_count("n_routed_experts", limits::kMaxExperts));
  SHOAL_TRY(router.used, fields.require_count("num_experts_per_tok", limits::kMaxExperts));
  SHOAL_TRY(const auto groups, fields.get_count("n_group", limits::kMaxExperts));
  SHOAL_TRY(const auto used_groups, fields.get_count("topk_group", limits::kMaxExperts));
  SHOAL_TRY(const auto scale, fields.get_positive("routed_scaling_factor"));
  fields.get("norm_topk_prob");
  router.expert_count = experts.value_or(defaults.experts);
  router.scale = static_cast<float>(scale.value_or(defaults.scale));
  if (method == "group_limited_greedy") {
    if (!groups) return fields.missing("n_group");
    if (!used_groups) return fields.missing("topk_group");
    router.group_count = *groups;
    router.used_groups = *used_groups;
  } else if (method && *method != "greedy") {
    return fields.not_supported("topk_method");
  }
  SHOAL_TRY_VOID(check_router(router, "config.json"));
  return router;
}

Result<> read_mixture(Fields& fields, const Family& family, Layers& layers) {
  const bool is_dense = fields.contains("n_routed_experts") && !fields.get("n_routed_experts");
  if (!is_dense && family.is_v2) {
    SHOAL_TRY(layers.router, read_softmax_router(fields, family.router));
  } else if (!is_dense) {
    SHOAL_TRY_VOID(fields.expect_text("scoring_func", "sigmoid"));
    SHOAL_TRY_VOID(fields.expect_text("topk_method", "noaux_tc"));
    SHOAL_TRY(layers.router, read_sigmoid_router(fields, family.router));
  }
  SHOAL_TRY(const auto width, fields.get_count("moe_intermediate_size", limits::kMaxWidth));
  layers.expert_width = width.value_or(family.expert_width);
  SHOAL_TRY(const uint32_t shared,
            read_count_or_none(fields, "n_shared_experts", limits::kMaxExperts, family.shared_experts));
  SHOAL_TRY(layers.shared_width, shared_experts_width(shared, layers.expert_width));
  SHOAL_TRY(layers.leading_dense,
            fields.get_whole("first_k_dense_replace", limits::kMaxLayers, family.leading_dense));
  SHOAL_TRY(const auto every, fields.get_count("moe_layer_freq", limits::kMaxLayers));
  layers.every = every.value_or(1);
  return {};
}

DenseSpec dense_spec(const Layers& layers, const std::string& prefix, uint32_t width) {
  DenseSpec dense = dense_feed_forward(prefix, width, layers.activation);
  if (!layers.mlp_bias) return dense;
  dense.gate_bias = TensorRef(prefix + "gate_proj.bias");
  dense.up_bias = TensorRef(prefix + "up_proj.bias");
  dense.down_bias = TensorRef(prefix + "down_proj.bias");
  return dense;
}

FeedForwardSpec feed_forward(const Layers& layers, uint32_t layer, const std::string& prefix,
                             uint32_t hidden_size, const Checkpoint& checkpoint) {
  if (!layers.is_mixture(layer)) return dense_spec(layers, prefix, layers.dense_width);
  MixtureSpec mixture;
  mixture.router_op = *layers.router;
  mixture.width = layers.expert_width;
  mixture.activation = layers.activation;
  mixture.router = TensorRef(prefix + "gate.weight");
  if (mixture.router_op.score == engine::RouterOp::Score::sigmoid)
    mixture.choice_bias = TensorRef(prefix + "gate.e_score_correction_bias");
  name_experts(mixture, prefix, hidden_size, checkpoint);
  if (layers.shared_width != 0)
    mixture.shared = dense_spec(layers, prefix + "shared_experts.", layers.shared_width);
  return mixture;
}

LatentAttentionSpec named_attention(const Layers& layers, const std::string& prefix,
                                    const Checkpoint& checkpoint) {
  LatentAttentionSpec attention = layers.attention;
  if (attention.query_rank == 0) {
    attention.query = TensorRef(prefix + "q_proj.weight");
  } else {
    attention.query_down = TensorRef(prefix + "q_a_proj.weight");
    attention.query_down_norm = TensorRef(prefix + "q_a_layernorm.weight");
    attention.query_up = TensorRef(prefix + "q_b_proj.weight");
    if (layers.attention_bias) attention.query_down_bias = TensorRef(prefix + "q_a_proj.bias");
  }
  attention.latent_down = TensorRef(prefix + "kv_a_proj_with_mqa.weight");
  attention.latent_norm = TensorRef(prefix + "kv_a_layernorm.weight");
  attention.output = TensorRef(prefix + "o_proj.weight");
  if (layers.attention_bias) {
    attention.latent_down_bias = TensorRef(prefix + "kv_a_proj_with_mqa.bias");
    attention.output_bias = TensorRef(prefix + "o_proj.bias");
  }
  if (checkpoint.find(prefix + "embed_q.weight")) {  // MLX
    name_split_up(attention, prefix + "embed_q.weight", prefix + "unembed_out.weight", checkpoint);
  } else {
    name_joint_up(attention, prefix + "kv_b_proj.weight", checkpoint);
  }
  return attention;
}

Result<DecoderSpec> read_config(Fields& fields, const Checkpoint& checkpoint, const Family& family) {
  SHOAL_TRY(const auto stated, fields.get_count("qk_rope_head_dim", limits::kMaxHeadDim));
  const uint32_t rotated = stated.value_or(64);
  if (rotated % 2 != 0) return fields.wrong_value("qk_rope_head_dim", "even");
  SizeDefaults defaults = family.sizes;
  defaults.head_dim = rotated;
  SHOAL_TRY(const Sizes sizes, read_sizes(fields, defaults));
  Layers layers;
  SHOAL_TRY(layers.attention, read_attention(fields, family, rotated, sizes));
  SHOAL_TRY(layers.attention_bias, fields.get_flag("attention_bias", false));
  if (family.is_v2) {
    SHOAL_TRY(layers.mlp_bias, fields.get_flag("mlp_bias", false));
  }
  SHOAL_TRY(layers.activation, read_activation(fields));
  SHOAL_TRY(layers.dense_width, fields.require_count("intermediate_size", limits::kMaxWidth));
  SHOAL_TRY_VOID(read_mixture(fields, family, layers));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  SHOAL_TRY(const uint32_t predictors, fields.get_whole("num_nextn_predict_layers", limits::kMaxLayers, 1));
  DecoderSpec spec = make_spec(fields.architecture(), sizes);
  name_model(spec, tied);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, prefix);
    layer.mixer = named_attention(layers, prefix + "self_attn.", checkpoint);
    layer.feed_forward = feed_forward(layers, i, prefix + "mlp.", sizes.hidden_size, checkpoint);
  }
  // Layers after the last predict further tokens.
  for (uint32_t i = 0; i < std::max(predictors, 1U); ++i)
    spec.ignored_prefixes.push_back(layer_prefix(sizes.layers + i));
  return spec;
}

Result<DecoderSpec> read_v2_config(Fields& fields, const Checkpoint& checkpoint) {
  return read_config(fields, checkpoint, kV2);
}

Result<DecoderSpec> read_v3_config(Fields& fields, const Checkpoint& checkpoint) {
  return read_config(fields, checkpoint, kV3);
}

}  // namespace

const Architecture kDeepseekV2{"deepseek_v2", "DeepseekV2ForCausalLM", "", read_v2_config, nullptr};
const Architecture kDeepseekV3{"deepseek_v3", "DeepseekV3ForCausalLM", "", read_v3_config, nullptr};
const Architecture kKimiK2{"kimi_k2", "DeepseekV3ForCausalLM", "", read_v3_config, nullptr};

}  // namespace shoal::model
