// Qwen3, dense (https://arxiv.org/abs/2505.09388): Llama's block with an RMS norm over each head of queries
// and keys before the rotary positions, and a head size of its own. Rotary pairs are halves in both formats.
#include <fmt/format.h>

#include "model/architectures/architecture.h"
#include "model/config.h"

namespace shoal::model {
namespace {

Result<DecoderSpec> read_config(const JsonObject& json) {
  SHOAL_TRY(const DenseConfig config,
            read_dense_config(json, {.kv_heads = 32, .head_dim = 128, .context_tokens = 32768}));
  DecoderSpec spec = make_dense_spec(kQwen3.name, config);
  spec.embedding = "model.embed_tokens.weight";
  spec.final_norm = "model.norm.weight";
  spec.head = config.tied ? spec.embedding : "lm_head.weight";
  for (uint32_t i = 0; i < spec.layer_count(); ++i) {
    const std::string prefix = fmt::format("model.layers.{}.self_attn.", i);
    LayerTensors& names = spec.layers[i].tensors;
    names = safetensors_layer_names(i);
    names.query_norm = prefix + "q_norm.weight";
    names.key_norm = prefix + "k_norm.weight";
    if (config.attention_bias) {
      names.query_bias = prefix + "q_proj.bias";
      names.key_bias = prefix + "k_proj.bias";
      names.value_bias = prefix + "v_proj.bias";
      names.output_bias = prefix + "o_proj.bias";
    }
  }
  return spec;
}

Result<DecoderSpec> read_gguf(const formats::Checkpoint& checkpoint) {
  SHOAL_TRY(const DenseConfig config,
            read_dense_metadata(checkpoint, kQwen3.name, engine::RopePairs::halves));
  DecoderSpec spec = make_dense_spec(kQwen3.name, config);
  spec.embedding = "token_embd.weight";
  spec.final_norm = "output_norm.weight";
  spec.head = checkpoint.find("output.weight") ? "output.weight" : spec.embedding;
  for (uint32_t i = 0; i < spec.layer_count(); ++i) {
    LayerTensors& names = spec.layers[i].tensors;
    names = gguf_layer_names(i);
    names.query_norm = fmt::format("blk.{}.attn_q_norm.weight", i);
    names.key_norm = fmt::format("blk.{}.attn_k_norm.weight", i);
    add_gguf_biases(i, checkpoint, names);
  }
  return spec;
}

}  // namespace

const Architecture kQwen3{"qwen3", "Qwen3ForCausalLM", read_config, read_gguf};

}  // namespace shoal::model
