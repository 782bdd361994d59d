// Qwen3, dense (https://arxiv.org/abs/2505.09388): Llama's block with an RMS norm over each head of queries
// and keys before the rotary positions, and a head size of its own. Rotary pairs are halves in both formats.
#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

Result<DecoderSpec> read_config(Fields& fields, const formats::Checkpoint&) {
  SHOAL_TRY(const Sizes sizes,
            read_sizes(fields, {.kv_heads = 32, .head_dim = 128, .context_tokens = 32768}));
  SHOAL_TRY(const RopeSpec rope,
            read_rope(fields, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const uint32_t width, fields.require_count("intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(const engine::Activation activation, read_activation(fields));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  SHOAL_TRY(const bool biases, fields.get_flag("attention_bias", false));
  SHOAL_TRY_VOID(fields.expect_flag("use_qk_norm", true));  // as the family always does
  SHOAL_TRY(const std::vector<uint32_t> windows, read_qwen_windows(fields, sizes.layers, true));
  DecoderSpec spec = make_spec(fields.architecture(), sizes);
  name_model(spec, tied);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_attention(attention, prefix, biases, biases);
    attention.window = windows[i];
    attention.query_norm = TensorRef(prefix + "self_attn.q_norm.weight");
    attention.key_norm = TensorRef(prefix + "self_attn.k_norm.weight");
    layer.mixer = std::move(attention);
    layer.feed_forward = dense_feed_forward(prefix + "mlp.", width, activation);
  }
  return spec;
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(DecoderSpec spec, read_plain_gguf(metadata));
  for (uint32_t i = 0; i < spec.layer_count(); ++i) {
    auto& attention = std::get<AttentionSpec>(spec.layers[i].mixer);
    attention.query_norm = TensorRef(gguf_layer_prefix(i) + "attn_q_norm.weight");
    attention.key_norm = TensorRef(gguf_layer_prefix(i) + "attn_k_norm.weight");
  }
  return spec;
}

}  // namespace

const Architecture kQwen3{"qwen3", "Qwen3ForCausalLM", "qwen3", read_config, read_gguf};

}  // namespace shoal::model
