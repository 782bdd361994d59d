// Llama 1 to 3 and what copies it (https://arxiv.org/abs/2302.13971, https://arxiv.org/abs/2407.21783):
// pre-norm blocks, grouped-query attention with rotary positions over the whole head, SwiGLU.
//
// In safetensors the rotary pairs of a head are its two halves. GGUF stores the rows of attn_q and attn_k
// permuted, so that pairs are neighbours, and llama3's frequency scaling as the tensor rope_freqs.weight.
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

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(const Sizes sizes, read_sizes(metadata));
  SHOAL_TRY(const RopeSpec rope, read_rope(metadata, {.pairs = engine::RopePairs::interleaved,
                                                      .head_dim = sizes.head_dim,
                                                      .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const uint32_t width, metadata.require_count("feed_forward_length", limits::kMaxWidth));
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  name_gguf_model(spec, metadata.checkpoint());
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_gguf_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_gguf_attention(attention, prefix, metadata.checkpoint());
    layer.mixer = std::move(attention);
    layer.feed_forward = gguf_dense_feed_forward(prefix, width, {}, metadata.checkpoint());
  }
  return spec;
}

}  // namespace

const Architecture kLlama{"llama", "LlamaForCausalLM", "llama", read_config, read_gguf};

}  // namespace shoal::model
