#include "model/config.h"

#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"

namespace shoal::model {

DecoderSpec make_spec(std::string_view architecture, const Sizes& sizes) {
  DecoderSpec spec;
  spec.architecture = architecture;
  spec.hidden_size = sizes.hidden_size;
  spec.vocabulary_size = sizes.vocabulary_size;
  spec.context_tokens = sizes.context_tokens;
  spec.norm_epsilon = sizes.norm_epsilon;
  spec.layers.resize(sizes.layers);
  return spec;
}

AttentionSpec make_attention(const Sizes& sizes, const RopeSpec& rope) {
  AttentionSpec attention;
  attention.query_heads = sizes.query_heads;
  attention.kv_heads = sizes.kv_heads;
  attention.head_dim = sizes.head_dim;
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(sizes.head_dim)));
  attention.rope = rope;
  return attention;
}

std::string find_model_prefix(const formats::Checkpoint& checkpoint) {
  for (const char* prefix : {"language_model.model.", "model.language_model."})
    if (checkpoint.find(fmt::format("{}embed_tokens.weight", prefix))) return prefix;
  return "model.";
}

std::vector<std::string> multimodal_prefixes() {
  std::vector<std::string> prefixes;
  for (const char* outer : {"", "model."})
    for (const char* part : {"vision_tower.", "vision_model.", "multi_modal_projector."})
      prefixes.push_back(fmt::format("{}{}", outer, part));
  return prefixes;
}

void name_model(DecoderSpec& spec, bool tied, std::string_view prefix) {
  spec.embedding = TensorRef(fmt::format("{}embed_tokens.weight", prefix));
  spec.final_norm = TensorRef(fmt::format("{}norm.weight", prefix));
  spec.head =
      TensorRef(prefix == "language_model.model." ? "language_model.lm_head.weight" : "lm_head.weight");
  if (tied) spec.head = spec.embedding;
}

void name_gguf_model(DecoderSpec& spec, const formats::Checkpoint& checkpoint) {
  spec.embedding = TensorRef("token_embd.weight");
  spec.final_norm = TensorRef("output_norm.weight");
  spec.head = checkpoint.find("output.weight") ? TensorRef("output.weight") : spec.embedding;
}

std::string layer_prefix(uint32_t layer, std::string_view prefix) {
  return fmt::format("{}layers.{}.", prefix, layer);
}

std::string gguf_layer_prefix(uint32_t layer) {
  return fmt::format("blk.{}.", layer);
}

void name_layer_norms(LayerSpec& layer, const std::string& prefix) {
  layer.mixer_norm = TensorRef(prefix + "input_layernorm.weight");
  layer.feed_forward_norm = TensorRef(prefix + "post_attention_layernorm.weight");
}

void name_gguf_layer_norms(LayerSpec& layer, const std::string& prefix) {
  layer.mixer_norm = TensorRef(prefix + "attn_norm.weight");
  layer.feed_forward_norm = TensorRef(prefix + "ffn_norm.weight");
}

void name_attention(AttentionSpec& attention, const std::string& prefix, bool biases, bool output_bias) {
  attention.query = TensorRef(prefix + "self_attn.q_proj.weight");
  attention.key = TensorRef(prefix + "self_attn.k_proj.weight");
  attention.value = TensorRef(prefix + "self_attn.v_proj.weight");
  attention.output = TensorRef(prefix + "self_attn.o_proj.weight");
  if (biases) {
    attention.query_bias = TensorRef(prefix + "self_attn.q_proj.bias");
    attention.key_bias = TensorRef(prefix + "self_attn.k_proj.bias");
    attention.value_bias = TensorRef(prefix + "self_attn.v_proj.bias");
  }
  if (output_bias) attention.output_bias = TensorRef(prefix + "self_attn.o_proj.bias");
}

namespace {

// The tensor's name when the file has it: of GGUF biases, their presence is the only sign.
TensorRef if_present(const formats::Checkpoint& checkpoint, std::string name) {
  return checkpoint.find(name) ? TensorRef(std::move(name)) : TensorRef();
}

}  // namespace

void name_gguf_attention(AttentionSpec& attention, const std::string& prefix,
                         const formats::Checkpoint& checkpoint) {
  attention.query = TensorRef(prefix + "attn_q.weight");
  attention.key = TensorRef(prefix + "attn_k.weight");
  attention.value = TensorRef(prefix + "attn_v.weight");
  attention.output = TensorRef(prefix + "attn_output.weight");
  attention.query_bias = if_present(checkpoint, prefix + "attn_q.bias");
  attention.key_bias = if_present(checkpoint, prefix + "attn_k.bias");
  attention.value_bias = if_present(checkpoint, prefix + "attn_v.bias");
  attention.output_bias = if_present(checkpoint, prefix + "attn_output.bias");
}

DenseSpec dense_feed_forward(const std::string& prefix, uint32_t width,
                             const engine::Activation& activation) {
  DenseSpec dense;
  dense.width = width;
  dense.activation = activation;
  dense.gate = TensorRef(prefix + "gate_proj.weight");
  dense.up = TensorRef(prefix + "up_proj.weight");
  dense.down = TensorRef(prefix + "down_proj.weight");
  return dense;
}

DenseSpec gguf_dense_feed_forward(const std::string& prefix, uint32_t width,
                                  const engine::Activation& activation,
                                  const formats::Checkpoint& checkpoint) {
  DenseSpec dense;
  dense.width = width;
  dense.activation = activation;
  dense.gate = TensorRef(prefix + "ffn_gate.weight");
  dense.up = TensorRef(prefix + "ffn_up.weight");
  dense.down = TensorRef(prefix + "ffn_down.weight");
  dense.gate_bias = if_present(checkpoint, prefix + "ffn_gate.bias");
  dense.up_bias = if_present(checkpoint, prefix + "ffn_up.bias");
  dense.down_bias = if_present(checkpoint, prefix + "ffn_down.bias");
  return dense;
}

}  // namespace shoal::model
