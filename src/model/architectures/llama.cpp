// Llama 1 to 3 and what copies it (https://arxiv.org/abs/2302.13971, https://arxiv.org/abs/2407.21783):
// pre-norm blocks, grouped-query attention with rotary positions over the whole head, SwiGLU.
//
// In safetensors the rotary pairs of a head are its two halves. GGUF stores the rows of attn_q and attn_k
// permuted, so that pairs are neighbours, and llama3's frequency scaling as the tensor rope_freqs.weight.
#include <fmt/format.h>

#include "model/architectures/architecture.h"
#include "model/config.h"

namespace shoal::model {
namespace {

Result<DecoderSpec> read_config(const JsonObject& json) {
  SHOAL_TRY(const DenseConfig config,
            read_dense_config(json, {.kv_heads = {}, .head_dim = {}, .context_tokens = 2048}));
  DecoderSpec spec = make_dense_spec(kLlama.name, config);
  spec.embedding = "model.embed_tokens.weight";
  spec.final_norm = "model.norm.weight";
  spec.head = config.tied ? spec.embedding : "lm_head.weight";
  for (uint32_t i = 0; i < spec.layer_count(); ++i) {
    LayerTensors& names = spec.layers[i].tensors;
    names = safetensors_layer_names(i);
    if (config.attention_bias) {
      const std::string prefix = fmt::format("model.layers.{}.self_attn.", i);
      names.query_bias = prefix + "q_proj.bias";
      names.key_bias = prefix + "k_proj.bias";
      names.value_bias = prefix + "v_proj.bias";
      names.output_bias = prefix + "o_proj.bias";
    }
    if (config.mlp_bias) {
      const std::string prefix = fmt::format("model.layers.{}.mlp.", i);
      names.gate_bias = prefix + "gate_proj.bias";
      names.up_bias = prefix + "up_proj.bias";
      names.down_bias = prefix + "down_proj.bias";
    }
  }
  return spec;
}

Result<DecoderSpec> read_gguf(const formats::Checkpoint& checkpoint) {
  SHOAL_TRY(const DenseConfig config,
            read_dense_metadata(checkpoint, kLlama.name, engine::RopePairs::interleaved));
  DecoderSpec spec = make_dense_spec(kLlama.name, config);
  spec.embedding = "token_embd.weight";
  spec.final_norm = "output_norm.weight";
  spec.head = checkpoint.find("output.weight") ? "output.weight" : spec.embedding;
  for (uint32_t i = 0; i < spec.layer_count(); ++i) {
    spec.layers[i].tensors = gguf_layer_names(i);
    add_gguf_biases(i, checkpoint, spec.layers[i].tensors);
  }
  return spec;
}

}  // namespace

const Architecture kLlama{"llama", "LlamaForCausalLM", read_config, read_gguf};

}  // namespace shoal::model
