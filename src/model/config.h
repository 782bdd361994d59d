// What all readers of configurations share: the numbers that every decoder has and the names that most
// checkpoints use. Every number is bounded by base/limits.h; every Error names the architecture, the field
// and the value found.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"
#include "model/fields.h"
#include "model/metadata.h"

namespace shoal::model {

struct Sizes {
  uint32_t layers = 0;
  uint32_t hidden_size = 0;
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t context_tokens = 0;
  uint32_t vocabulary_size = 0;  // 0: not stated, the embedding decides
  float norm_epsilon = 0;
};

// What a family of models means by a field that is absent from config.json.
struct SizeDefaults {
  std::optional<uint32_t> layers = {}, hidden_size = {}, query_heads = {};  // nullopt: must be stated
  std::optional<uint32_t> kv_heads =
      {};  // nullopt: as many as query heads; an explicit null always means that
  std::optional<uint32_t> head_dim =
      {};  // nullopt: hidden size / query heads; an explicit null always means that
  uint32_t context_tokens = 2048;
  double norm_epsilon = 1e-6;
};

// num_hidden_layers, hidden_size, num_attention_heads, num_key_value_heads, head_dim,
// max_position_embeddings, vocab_size and rms_norm_eps.
Result<Sizes> read_sizes(Fields& fields, const SizeDefaults& defaults);
// <architecture>.block_count, embedding_length, attention.head_count and so on. The head size may be odd only
// where nothing rotates.
// `absent_epsilon`: of the norms, where the file need not say it.
Result<Sizes> read_sizes(Metadata& metadata, std::optional<double> absent_epsilon = {});

// The blocks that compute the next token: block_count without the last nextn_predict_layers, which predict
// further ones and whose prefixes are added to `ignored`.
Result<uint32_t> read_main_layers(Metadata& metadata, uint32_t block_count,
                                  std::vector<std::string>& ignored);

// hidden_act (or `field`), which must be one of silu, swish, gelu_pytorch_tanh and gelu_new.
Result<engine::Activation> read_activation(Fields& fields, std::string_view field = "hidden_act",
                                           engine::Activation absent = {});

// num_experts or num_local_experts (transformers writes either), or `absent`.
Result<uint32_t> read_expert_count(Fields& fields, uint32_t absent);

// The window of each layer, 0 for none: sliding_window (absent: `absent`; null: none) on the layers that
// layer_types calls sliding_attention, or without layer_types where `slides` says so.
Result<std::vector<uint32_t>> read_windows(Fields& fields, uint32_t layers, uint32_t absent,
                                           const std::function<bool(uint32_t layer)>& slides);
// Qwen's switches before that: use_sliding_window and, where `counts_layers`, max_window_layers.
Result<std::vector<uint32_t>> read_qwen_windows(Fields& fields, uint32_t layers, bool counts_layers);

// A spec with its sizes filled in, and `sizes.layers` empty layers.
DecoderSpec make_spec(std::string_view architecture, const Sizes& sizes);
// Grouped-query attention over these heads, scaled by head_dim^-0.5; names still empty.
AttentionSpec make_attention(const Sizes& sizes, const RopeSpec& rope);

// What stands before "embed_tokens.weight" in the checkpoint: "model.", or of the text model in a multimodal
// checkpoint "language_model.model." or "model.language_model.".
std::string find_model_prefix(const formats::Checkpoint& checkpoint);
// Tensors beside the text model in such a checkpoint.
std::vector<std::string> multimodal_prefixes();

// The names of embedding, final norm and head, and of nearly all layers, in safetensors ("model." or another
// prefix) and in GGUF.
void name_model(DecoderSpec& spec, bool tied, std::string_view prefix = "model.");
void name_gguf_model(DecoderSpec& spec,
                     const formats::Checkpoint& checkpoint);  // tied if there is no output.weight

std::string layer_prefix(uint32_t layer, std::string_view prefix = "model.");  // "model.layers.3."
std::string gguf_layer_prefix(uint32_t layer);                                 // "blk.3."

void name_layer_norms(LayerSpec& layer,
                      const std::string& prefix);  // input_layernorm, post_attention_layernorm
void name_gguf_layer_norms(LayerSpec& layer, const std::string& prefix);  // attn_norm, ffn_norm
// self_attn.{q,k,v,o}_proj.weight; `biases` adds q, k and v; `output_bias` adds o.
void name_attention(AttentionSpec& attention, const std::string& prefix, bool biases, bool output_bias);
void name_gguf_attention(AttentionSpec& attention, const std::string& prefix,
                         const formats::Checkpoint& checkpoint);
// <prefix>{gate,up,down}_proj.weight and ffn_{gate,up,down}.weight; of GGUF also the biases that the file
// has.
DenseSpec dense_feed_forward(const std::string& prefix, uint32_t width, const engine::Activation& activation);
DenseSpec gguf_dense_feed_forward(const std::string& prefix, uint32_t width,
                                  const engine::Activation& activation,
                                  const formats::Checkpoint& checkpoint);

// The gate, up and down matrices of a mixture's experts, of which router_op.expert_count and width are set,
// as the checkpoint holds them: a tensor for each (<prefix>experts.N.<gate>.weight), three stacks
// (<prefix>switch_mlp.gate_proj.weight [E, F, D], as MLX writes), or two (<prefix>experts.gate_up_proj
// [E, 2F, D] and experts.down_proj [E, D, F]).
struct ExpertNames {
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";
};
void name_experts(MixtureSpec& mixture, const std::string& prefix, uint64_t hidden_size,
                  const formats::Checkpoint& checkpoint, const ExpertNames& names = {});
// ffn_{gate,up,down}_exps.weight, ffn_gate_up_exps.weight, or old files' ffn_{gate,up,down}.N.weight; also
// the router, ffn_gate_inp.weight.
void name_gguf_experts(MixtureSpec& mixture, const std::string& prefix, uint64_t hidden_size,
                       const formats::Checkpoint& checkpoint);
// Matrix `index` of a stack [E, rows, columns]; the part: its rows from `first` on.
TensorRef stacked_matrix(std::string name, uint32_t index, std::vector<uint64_t> shape,
                         engine::Runs rows = {});
// `count` neighbouring rows of a matrix [rows, columns].
TensorRef matrix_rows(std::string name, std::vector<uint64_t> shape, uint32_t first, uint32_t count);

// Llama's block from GGUF: attention over whole heads as `attention.*` has it, a dense feed-forward of SiLU.
// Pages add what their family has besides.
Result<DecoderSpec> read_plain_gguf(Metadata& metadata);

}  // namespace shoal::model
