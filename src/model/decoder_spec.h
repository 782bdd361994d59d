// A decoder model, layer by layer, as data: what model/decoder.h needs to run it and nothing about files.
// An architecture file (model/architectures/NAME.cpp) maps a configuration and tensor names onto this, a page each;
// new models are new pages, not new loops. Every field that changes the maths is here or the model is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/backend.h"
#include "formats/checkpoint.h"

namespace shoal::model {

struct RopeSpec {
  engine::RopePairs pairs = engine::RopePairs::halves;
  uint32_t dimensions = 0;                 // rotated values of a head, even, <= head_dim
  float magnitude = 1;                     // multiplies cos and sin
  std::vector<float> inverse_frequencies;  // [dimensions / 2], scaling already applied
};

struct AttentionSpec {
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  float scale = 0;
  uint32_t window = 0;  // 0: none
  RopeSpec rope;
};

struct FeedForwardSpec {
  uint32_t width = 0;
  engine::Activation activation;
};

// Names of a layer's tensors in the checkpoint. An empty name: the layer has none.
struct LayerTensors {
  std::string attention_norm;  // [D]
  std::string query, key, value, output;                     // [H*d, D] [G*d, D] [G*d, D] [D, H*d]
  std::string query_bias, key_bias, value_bias, output_bias;
  std::string query_norm, key_norm;                          // [d]
  std::string feed_forward_norm;  // [D]
  std::string gate, up, down;                                // [F, D] [F, D] [D, F]
  std::string gate_bias, up_bias, down_bias;
};

struct LayerSpec {
  AttentionSpec attention;
  FeedForwardSpec feed_forward;
  LayerTensors tensors;
};

struct DecoderSpec {
  std::string architecture;        // "llama", "qwen3"
  uint32_t hidden_size = 0;        // D
  uint32_t vocabulary_size = 0;    // rows of the embedding
  uint32_t context_tokens = 0;     // the longest sequence the model was made for
  float norm_epsilon = 0;
  std::vector<LayerSpec> layers;
  std::string embedding;           // [V, D]
  std::string final_norm;          // [D]
  std::string head;                // [V, D]; the embedding's name when tied

  uint32_t layer_count() const { return static_cast<uint32_t>(layers.size()); }
};

// What a model asks of a machine, for the planner and for `show`. Bytes are of the file's types.
struct LayerCost {
  uint64_t weight_bytes;
  uint64_t flops_per_token;          // multiply-adds times two, attention over the context left out
  uint64_t kv_values_per_token;      // keys and values; times bytes per value of the KvType
};
struct ModelCost {
  std::vector<LayerCost> layers;
  uint64_t embedding_bytes;          // needed by the first stage
  uint64_t head_bytes;               // needed by the last stage, norm included; equals embedding_bytes when tied
  uint64_t head_flops_per_token;
};

// Reads the checkpoint's configuration. Errors: unsupported (architecture or field, named with its value), malformed
// (a missing tensor, a shape that contradicts the configuration).
Result<DecoderSpec> read_decoder_spec(const formats::Checkpoint& checkpoint);
Result<ModelCost> model_cost(const DecoderSpec& spec, const formats::Checkpoint& checkpoint);

// Token ids that end an answer, from generation_config.json, config.json or GGUF metadata; may be empty.
std::vector<int32_t> end_of_sequence_ids(const formats::Checkpoint& checkpoint);

}  // namespace shoal::model
