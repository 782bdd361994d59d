#include "model/config.h"

#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"

namespace shoal::model {

DecoderSpec make_dense_spec(std::string_view architecture, const DenseConfig& config) {
  LayerSpec layer;
  layer.attention = {config.query_heads,
                     config.kv_heads,
                     config.head_dim,
                     static_cast<float>(1 / std::sqrt(static_cast<double>(config.head_dim))),
                     0,
                     config.rope};
  layer.feed_forward = {config.feed_forward_width, engine::Activation{}};
  DecoderSpec spec;
  spec.architecture = architecture;
  spec.hidden_size = config.hidden_size;
  spec.vocabulary_size = config.vocabulary_size;
  spec.context_tokens = config.context_tokens;
  spec.norm_epsilon = config.norm_epsilon;
  spec.layers.assign(config.layers, layer);
  return spec;
}

LayerTensors safetensors_layer_names(uint32_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  LayerTensors names;
  names.attention_norm = prefix + "input_layernorm.weight";
  names.query = prefix + "self_attn.q_proj.weight";
  names.key = prefix + "self_attn.k_proj.weight";
  names.value = prefix + "self_attn.v_proj.weight";
  names.output = prefix + "self_attn.o_proj.weight";
  names.feed_forward_norm = prefix + "post_attention_layernorm.weight";
  names.gate = prefix + "mlp.gate_proj.weight";
  names.up = prefix + "mlp.up_proj.weight";
  names.down = prefix + "mlp.down_proj.weight";
  return names;
}

LayerTensors gguf_layer_names(uint32_t layer) {
  const std::string prefix = fmt::format("blk.{}.", layer);
  LayerTensors names;
  names.attention_norm = prefix + "attn_norm.weight";
  names.query = prefix + "attn_q.weight";
  names.key = prefix + "attn_k.weight";
  names.value = prefix + "attn_v.weight";
  names.output = prefix + "attn_output.weight";
  names.feed_forward_norm = prefix + "ffn_norm.weight";
  names.gate = prefix + "ffn_gate.weight";
  names.up = prefix + "ffn_up.weight";
  names.down = prefix + "ffn_down.weight";
  return names;
}

void add_gguf_biases(uint32_t layer, const formats::Checkpoint& checkpoint, LayerTensors& names) {
  auto add = [&](std::string& place, std::string_view part) {
    std::string name = fmt::format("blk.{}.{}.bias", layer, part);
    if (checkpoint.find(name)) place = std::move(name);
  };
  add(names.query_bias, "attn_q");
  add(names.key_bias, "attn_k");
  add(names.value_bias, "attn_v");
  add(names.output_bias, "attn_output");
  add(names.gate_bias, "ffn_gate");
  add(names.up_bias, "ffn_up");
  add(names.down_bias, "ffn_down");
}

}  // namespace shoal::model
