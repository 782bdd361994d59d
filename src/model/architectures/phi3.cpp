// Phi-3, 3.5-mini, Phi-4 and Phi-4-mini (https://arxiv.org/abs/2404.14219): Llama's block with queries, keys
// and values in one matrix and gate and up in another. Longer contexts by longrope. Rotary pairs are halves
// in both formats.
#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

// Queries, then keys, then values in one [(H + 2 G) * d, D].
void name_fused_attention(AttentionSpec& attention, const std::string& name, uint64_t hidden_size) {
  const uint32_t queries = attention.query_heads * attention.head_dim;
  const uint32_t keys = attention.kv_heads * attention.head_dim;
  const std::vector<uint64_t> shape = {uint64_t{queries} + 2 * uint64_t{keys}, hidden_size};
  attention.query = matrix_rows(name, shape, 0, queries);
  attention.key = matrix_rows(name, shape, queries, keys);
  attention.value = matrix_rows(name, shape, queries + keys, keys);
}

// Gate, then up in one [2 F, D].
DenseSpec fused_feed_forward(const std::string& gate_up, const std::string& down, uint32_t width,
                             uint64_t hidden_size, const engine::Activation& activation) {
  DenseSpec dense;
  dense.width = width;
  dense.activation = activation;
  dense.gate = matrix_rows(gate_up, {uint64_t{2} * width, hidden_size}, 0, width);
  dense.up = matrix_rows(gate_up, {uint64_t{2} * width, hidden_size}, width, width);
  dense.down = TensorRef(down);
  return dense;
}

Result<DecoderSpec> read_config(Fields& fields, const formats::Checkpoint&) {
  SHOAL_TRY(const Sizes sizes, read_sizes(fields, {.context_tokens = 4096, .norm_epsilon = 1e-5}));
  SHOAL_TRY(const RopeSpec rope, read_rope(fields, {.head_dim = sizes.head_dim,
                                                    .context_tokens = sizes.context_tokens,
                                                    .partial_factor = 1,
                                                    .original_context = 4096,
                                                    .yarn_means_longrope = true}));
  SHOAL_TRY(const std::vector<uint32_t> windows,
            read_windows(fields, sizes.layers, 0, [](uint32_t) { return true; }));
  SHOAL_TRY(const uint32_t width, fields.require_count("intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(const engine::Activation activation, read_activation(fields));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  DecoderSpec spec = make_spec(fields.architecture(), sizes);
  name_model(spec, tied);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_fused_attention(attention, prefix + "self_attn.qkv_proj.weight", sizes.hidden_size);
    attention.output = TensorRef(prefix + "self_attn.o_proj.weight");
    attention.window = windows[i];
    layer.mixer = std::move(attention);
    layer.feed_forward =
        fused_feed_forward(prefix + "mlp.gate_up_proj.weight", prefix + "mlp.down_proj.weight", width,
                           sizes.hidden_size, activation);
  }
  return spec;
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(const Sizes sizes, read_sizes(metadata));
  SHOAL_TRY(const RopeSpec rope,
            read_rope(metadata, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const uint32_t width, metadata.require_count("feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(const uint32_t window,
            metadata.get_whole("attention.sliding_window", limits::kMaxContextTokens, 0));
  const formats::Checkpoint& checkpoint = metadata.checkpoint();
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_gguf_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_gguf_attention(attention, prefix, checkpoint);
    if (checkpoint.find(prefix + "attn_qkv.weight"))
      name_fused_attention(attention, prefix + "attn_qkv.weight", sizes.hidden_size);
    attention.window = window;
    layer.mixer = std::move(attention);
    layer.feed_forward = fused_feed_forward(prefix + "ffn_up.weight", prefix + "ffn_down.weight", width,
                                            sizes.hidden_size, {});
  }
  return spec;
}

}  // namespace

const Architecture kPhi3{"phi3", "Phi3ForCausalLM", "phi3", read_config, read_gguf};

}  // namespace shoal::model
