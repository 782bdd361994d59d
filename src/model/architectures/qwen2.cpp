// Qwen2 and Qwen2.5 (https://arxiv.org/abs/2407.10671): Llama's block with biases on queries, keys and
// values. Rotary pairs are halves in both formats.
#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

Result<DecoderSpec> read_config(Fields& fields, const formats::Checkpoint&) {
  SHOAL_TRY(const Sizes sizes, read_sizes(fields, {.kv_heads = 32, .context_tokens = 32768}));
  SHOAL_TRY(const RopeSpec rope,
            read_rope(fields, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const std::vector<uint32_t> windows, read_qwen_windows(fields, sizes.layers, true));
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
    name_attention(attention, prefix, true, false);
    attention.window = windows[i];
    layer.mixer = std::move(attention);
    layer.feed_forward = dense_feed_forward(prefix + "mlp.", width, activation);
  }
  return spec;
}

}  // namespace

const Architecture kQwen2{"qwen2", "Qwen2ForCausalLM", "qwen2", read_config, read_plain_gguf};

}  // namespace shoal::model
