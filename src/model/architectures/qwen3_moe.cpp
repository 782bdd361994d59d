// Qwen3's mixtures (https://arxiv.org/abs/2505.09388): Qwen3's attention, and on most layers a mixture of
// experts with a softmax over all of them.
#include <algorithm>
#include <fmt/format.h>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

struct Experts {
  MixtureSpec mixture;             // without names
  uint32_t sparse_step = 1;        // layers step - 1, 2 step - 1 and so on have experts,
  std::vector<uint32_t> dense_on;  // but for these

  bool on(uint32_t layer) const {
    return std::ranges::find(dense_on, layer) == dense_on.end() && (layer + 1) % sparse_step == 0;
  }
};

Result<Experts> read_experts(Fields& fields) {
  Experts experts;
  SHOAL_TRY(const uint32_t count, read_expert_count(fields, 128));
  SHOAL_TRY(const auto used, fields.get_count("num_experts_per_tok", count));
  SHOAL_TRY(const bool normalise, fields.get_flag("norm_topk_prob", false));
  SHOAL_TRY(const auto width, fields.get_count("moe_intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(const auto step, fields.get_count("decoder_sparse_step", limits::kMaxLayers));
  SHOAL_TRY(experts.dense_on, fields.get_wholes("mlp_only_layers", limits::kMaxWidth));
  if (!used && count < 8) return fields.missing("num_experts_per_tok");
  experts.mixture.router_op = {.expert_count = count, .used = used.value_or(8), .normalise = normalise};
  experts.mixture.width = width.value_or(768);
  experts.sparse_step = step.value_or(1);
  return experts;
}

Result<DecoderSpec> read_config(Fields& fields, const Checkpoint& checkpoint) {
  SHOAL_TRY(const Sizes sizes, read_sizes(fields, {.kv_heads = 4, .context_tokens = 32768}));
  SHOAL_TRY(const RopeSpec rope,
            read_rope(fields, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const std::vector<uint32_t> windows, read_qwen_windows(fields, sizes.layers, false));
  SHOAL_TRY(const auto width, fields.get_count("intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(const engine::Activation activation, read_activation(fields));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  SHOAL_TRY(const bool biases, fields.get_flag("attention_bias", false));
  SHOAL_TRY_VOID(fields.expect_flag("use_qk_norm", true));  // as the family always does
  SHOAL_TRY(Experts experts, read_experts(fields));
  experts.mixture.activation = activation;
  DecoderSpec spec = make_spec(fields.architecture(), sizes);
  name_model(spec, tied);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_attention(attention, prefix, biases, biases);
    attention.query_norm = TensorRef(prefix + "self_attn.q_norm.weight");
    attention.key_norm = TensorRef(prefix + "self_attn.k_norm.weight");
    attention.window = windows[i];
    layer.mixer = std::move(attention);
    if (!experts.on(i)) {
      layer.feed_forward = dense_feed_forward(prefix + "mlp.", width.value_or(6144), activation);
      continue;
    }
    MixtureSpec mixture = experts.mixture;
    mixture.router = TensorRef(prefix + "mlp.gate.weight");
    name_experts(mixture, prefix + "mlp.", sizes.hidden_size, checkpoint);
    layer.feed_forward = std::move(mixture);
  }
  return spec;
}

// GGUF does not say whether weights are normalised: all published models do.
Result<MixtureSpec> read_gguf_mixture(Metadata& metadata) {
  MixtureSpec mixture;
  SHOAL_TRY(const uint32_t count, metadata.require_count("expert_count", limits::kMaxExperts));
  SHOAL_TRY(const uint32_t used, metadata.require_count("expert_used_count", count));
  SHOAL_TRY(const bool normalise, metadata.get_flag("expert_weights_norm", true));
  SHOAL_TRY(const uint32_t score, metadata.get_whole("expert_gating_func", UINT32_MAX, 1));
  if (score > 1) return metadata.not_supported("expert_gating_func", fmt::format("{}", score));
  SHOAL_TRY(const auto scale, metadata.get_positive("expert_weights_scale"));
  mixture.router_op = {.expert_count = count,
                       .used = used,
                       .normalise = normalise,
                       .scale = static_cast<float>(scale.value_or(1))};
  SHOAL_TRY(mixture.width, metadata.require_count("expert_feed_forward_length", limits::kMaxWidth));
  return mixture;
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  const Checkpoint& checkpoint = metadata.checkpoint();
  SHOAL_TRY(const Sizes sizes, read_sizes(metadata));
  SHOAL_TRY(const RopeSpec rope,
            read_rope(metadata, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const auto width, metadata.get_count("feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(const MixtureSpec mixture, read_gguf_mixture(metadata));
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_gguf_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_gguf_attention(attention, prefix, checkpoint);
    attention.query_norm = TensorRef(prefix + "attn_q_norm.weight");
    attention.key_norm = TensorRef(prefix + "attn_k_norm.weight");
    layer.mixer = std::move(attention);
    MixtureSpec experts = mixture;
    name_gguf_experts(experts, prefix, sizes.hidden_size, checkpoint);
    layer.feed_forward = std::move(experts);
    if (!checkpoint.find(prefix + "ffn_gate_inp.weight") && checkpoint.find(prefix + "ffn_gate.weight"))
      layer.feed_forward = gguf_dense_feed_forward(prefix, width.value_or(1), {}, checkpoint);
  }
  return spec;
}

}  // namespace

const Architecture kQwen3Moe{"qwen3_moe", "Qwen3MoeForCausalLM", "qwen3moe", read_config, read_gguf};

}  // namespace shoal::model
