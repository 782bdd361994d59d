// Llama 1 to 3 and what copies it (https://arxiv.org/abs/2302.13971, https://arxiv.org/abs/2407.21783):
// pre-norm blocks, grouped-query attention with rotary positions over the whole head, SwiGLU.
//
// In safetensors the rotary pairs of a head are its two halves. GGUF stores the rows of attn_q and attn_k
// permuted, so that pairs are neighbours, and llama3's frequency scaling as the tensor rope_freqs.weight.
// There, Mistral and Mixtral are "llama" too; Mistral's window is rarely stored.
#include <algorithm>
#include <fmt/format.h>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

Result<DecoderSpec> read_config(Fields& fields, const formats::Checkpoint&) {
  SHOAL_TRY(const Sizes sizes, read_sizes(fields, {}));
  SHOAL_TRY(const RopeSpec rope,
            read_rope(fields, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const uint32_t width, fields.require_count("intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(const engine::Activation activation, read_activation(fields));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  SHOAL_TRY(const bool attention_bias, fields.get_flag("attention_bias", false));
  SHOAL_TRY(const bool mlp_bias, fields.get_flag("mlp_bias", false));
  DecoderSpec spec = make_spec(fields.architecture(), sizes);
  name_model(spec, tied);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_attention(attention, prefix, attention_bias, attention_bias);
    layer.mixer = std::move(attention);
    DenseSpec dense = dense_feed_forward(prefix + "mlp.", width, activation);
    if (mlp_bias) {
      dense.gate_bias = TensorRef(prefix + "mlp.gate_proj.bias");
      dense.up_bias = TensorRef(prefix + "mlp.up_proj.bias");
      dense.down_bias = TensorRef(prefix + "mlp.down_proj.bias");
    }
    layer.feed_forward = std::move(dense);
  }
  return spec;
}

// The router of Mixtral.
Result<MixtureSpec> read_gguf_mixture(Metadata& metadata, uint32_t experts, uint32_t width) {
  MixtureSpec mixture;
  SHOAL_TRY(const uint32_t used, metadata.require_count("expert_used_count", experts));
  SHOAL_TRY(const uint32_t score, metadata.get_whole("expert_gating_func", UINT32_MAX, 1));
  if (score > 1) return metadata.not_supported("expert_gating_func", fmt::format("{}", score));
  mixture.router_op = {.expert_count = experts, .used = used, .normalise = true};
  mixture.width = width;
  return mixture;
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(const Sizes sizes, read_sizes(metadata));
  SHOAL_TRY(const RopeSpec rope, read_rope(metadata, {.pairs = engine::RopePairs::interleaved,
                                                      .head_dim = sizes.head_dim,
                                                      .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const uint32_t width, metadata.require_count("feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(const uint32_t window,
            metadata.get_whole("attention.sliding_window", limits::kMaxContextTokens, 0));
  SHOAL_TRY(const uint32_t experts, metadata.get_whole("expert_count", limits::kMaxExperts, 0));
  MixtureSpec mixture;
  if (experts > 0) {
    SHOAL_TRY(mixture, read_gguf_mixture(metadata, experts, width));
  }
  const formats::Checkpoint& checkpoint = metadata.checkpoint();
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_gguf_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_gguf_attention(attention, prefix, checkpoint);
    attention.window = window;
    layer.mixer = std::move(attention);
    layer.feed_forward = gguf_dense_feed_forward(prefix, width, {}, checkpoint);
    if (experts == 0) continue;
    MixtureSpec experts_of_layer = mixture;
    name_gguf_experts(experts_of_layer, prefix, sizes.hidden_size, checkpoint);
    layer.feed_forward = std::move(experts_of_layer);
  }
  return spec;
}

// Ministral 3. Beyond the original context its queries grow, which nothing here computes: the model ends
// there.
Result<DecoderSpec> read_mistral3_gguf(Metadata& metadata) {
  SHOAL_TRY(DecoderSpec spec, read_gguf(metadata));
  SHOAL_TRY(const auto growth, metadata.get_positive("attention.temperature_scale"));
  SHOAL_TRY(const auto original,
            metadata.get_count("rope.scaling.original_context_length", limits::kMaxContextTokens));
  if (growth) spec.context_tokens = std::min(spec.context_tokens, original.value_or(spec.context_tokens));
  return spec;
}

}  // namespace

const Architecture kLlama{"llama", "LlamaForCausalLM", "llama", read_config, read_gguf, "LLaMAForCausalLM"};
const Architecture kMistral3Gguf{"", "", "mistral3", nullptr, read_mistral3_gguf};

}  // namespace shoal::model
