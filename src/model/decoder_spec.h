// A decoder model, layer by layer, as data: what model/decoder.h needs to run it and nothing about files.
// An architecture file (model/architectures/NAME.cpp) maps a configuration and tensor names onto this, a page
// each; new models are new pages, not new loops. Every field that changes the maths is here or the model is
// refused.
//
// Shapes: D hidden size, V vocabulary, H query heads, G kv heads, d head size, F feed-forward width, E
// experts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/backend.h"
#include "formats/checkpoint.h"

namespace shoal::model {

// Where in the checkpoint a weight is: a whole tensor, or (see engine/source.h) a part of one.
struct TensorRef {
  std::string name;             // empty: the layer has none
  std::vector<uint64_t> shape;  // of the whole tensor in the file; empty: as the weight itself
  std::optional<uint32_t> index = {};
  engine::Runs rows = {};  // of a vector: its values
  engine::Runs columns = {};
  bool transposed = false;
  // Of a weight that is cut over ranks: what this rank holds of it (model/shard_plan.h). Of a vector its
  // rows.
  engine::Slice part_rows = {};
  engine::Slice part_columns = {};

  TensorRef() = default;
  TensorRef(std::string tensor)
      : name(std::move(tensor)) {}  // NOLINT(google-explicit-constructor): most are whole
  bool empty() const { return name.empty(); }
};

struct RopeSpec {
  engine::RopePairs pairs = engine::RopePairs::halves;
  uint32_t dimensions = 0;                      // rotated values of a head, even, <= head_dim
  float magnitude = 1;                          // multiplies cos and sin
  std::vector<float> inverse_frequencies;       // [dimensions / 2], scaling already applied
  std::vector<float> long_inverse_frequencies;  // of prompts longer than long_after_tokens; may be empty
  uint32_t long_after_tokens = 0;
};

// Grouped-query attention.
struct AttentionSpec {
  uint32_t query_heads = 0;  // 0: all are on other ranks
  uint32_t kv_heads = 0;
  uint32_t group_heads = 0;  // see engine::AttentionOp, as the next
  uint32_t skipped_heads = 0;
  uint32_t head_dim = 0;
  float scale = 0;
  uint32_t window = 0;                  // 0: none
  float softcap = 0;                    // 0: none
  RopeSpec rope;                        // dimensions 0: no rotary positions
  TensorRef query, key, value, output;  // [H*d, D] [G*d, D] [G*d, D] [D, H*d]
  TensorRef query_bias, key_bias, value_bias, output_bias;
  TensorRef query_norm, key_norm;  // [d]
  TensorRef sinks;                 // [H]
  TensorRef gate, gate_bias;       // [H*d, D] [H*d]: heads are multiplied by its sigmoid
};

// Multi-head latent attention (engine::LatentAttentionOp). Queries come through `query`, or through
// query_down, query_down_norm and query_up.
struct LatentAttentionSpec {
  uint32_t heads = 0;        // 0: all are on other ranks
  uint32_t query_rank = 0;   // Q; 0: `query` is one matrix
  uint32_t latent_rank = 0;  // R
  uint32_t nope_dim = 0;     // n
  uint32_t value_dim = 0;    // v
  float scale = 0;
  float norm_epsilon = 0;                           // of the two norms in here
  RopeSpec rope;                                    // r = rope.dimensions
  TensorRef query;                                  // [H*(n+r), D]
  TensorRef query_down, query_down_norm, query_up;  // [Q, D] [Q] [H*(n+r), Q]
  TensorRef latent_down, latent_norm;               // [R+r, D] [R]
  std::vector<TensorRef> key_up, value_up;          // H of [R, n], H of [v, R]
  TensorRef output;                                 // [D, H*v]
  TensorRef query_down_bias, latent_down_bias, output_bias;
};

// A gated delta net (engine::DeltaNetOp), with K key heads of k values and V value heads of v values.
struct DeltaNetSpec {
  engine::DeltaNetOp op;                    // its `layer` is left 0; without heads: all are on other ranks
  TensorRef query, key, value;              // [K*k, D] [K*k, D] [V*v, D]
  TensorRef gate, decay_input, rate_input;  // z [V*v, D], a [V, D], b [V, D]
  std::vector<TensorRef> taps;              // one after the other [channels * kernel]
  TensorRef decay_bias, decay;              // [V] each
  engine::VectorMap decay_map = engine::VectorMap::none;
  TensorRef norm;    // [v]
  TensorRef output;  // [D, V*v]
};

struct DenseSpec {
  uint32_t width = 0;  // 0: all of it is on other ranks
  engine::Activation activation;
  TensorRef gate, up, down;  // [F, D] [F, D] [D, F]
  TensorRef gate_bias, up_bias, down_bias;
};

struct MixtureSpec {
  engine::RouterOp router_op;
  uint32_t width = 0;  // of an expert
  engine::Activation activation;
  TensorRef router;                                      // [E, D]
  TensorRef router_bias;                                 // [E], part of the logits
  TensorRef choice_bias;                                 // [E], chooses only
  std::vector<TensorRef> gate, up, down;                 // E each, or those of this rank
  std::vector<TensorRef> gate_bias, up_bias, down_bias;  // as many, or none
  uint32_t first_expert = 0;                             // of those
  std::optional<DenseSpec> shared;                       // serves every row
  TensorRef shared_gate;  // [1, D]: the shared expert is multiplied by its sigmoid
};

using MixerSpec = std::variant<AttentionSpec, LatentAttentionSpec, DeltaNetSpec>;
using FeedForwardSpec = std::variant<DenseSpec, MixtureSpec>;

// x += post_norm(mixer(norm(x))), then the same with the feed-forward; post norms only where named.
struct LayerSpec {
  TensorRef mixer_norm, mixer_post_norm;  // [D]
  MixerSpec mixer;
  TensorRef feed_forward_norm, feed_forward_post_norm;  // [D]
  FeedForwardSpec feed_forward;
};

struct DecoderSpec {
  std::string architecture;      // "llama", "qwen3"
  uint32_t hidden_size = 0;      // D
  uint32_t vocabulary_size = 0;  // rows of the embedding; 0 until the embedding has been looked at
  uint32_t context_tokens = 0;   // the longest sequence the model was made for
  float norm_epsilon = 0;
  engine::VectorMap norm_map = engine::VectorMap::none;  // of every norm but a delta net's own
  float embedding_scale = 1;
  float final_softcap = 0;  // 0: none
  std::vector<LayerSpec> layers;
  TensorRef embedding;                        // [V, D]
  TensorRef final_norm;                       // [D]
  TensorRef head;                             // [V, D]; the embedding's name when tied
  std::vector<uint32_t> head_rows;            // of each rank, where the head is cut over several
  std::vector<std::string> ignored_prefixes;  // of tensors that inference does not use

  uint32_t layer_count() const { return static_cast<uint32_t>(layers.size()); }
  bool tied() const { return head.name == embedding.name; }
};

// What a model asks of a machine, for the planner and for `show`. Bytes are of the file's types.
struct LayerCost {
  uint64_t weight_bytes = 0;
  uint64_t active_bytes = 0;  // of the weights that one token reads: of a mixture, its experts only
  uint64_t parameters = 0;
  uint64_t flops_per_token = 0;      // multiply-adds times two, attention over the context left out
  uint64_t kv_values_per_token = 0;  // keys and values; times bytes per value of the KvType
  uint64_t state_bytes = 0;          // per sequence: recurrent layers
};
struct ModelCost {
  std::vector<LayerCost> layers;
  uint64_t embedding_bytes = 0;  // needed by the first stage
  uint64_t head_bytes = 0;       // needed by the last stage, norm included; equals embedding_bytes when tied
  uint64_t head_flops_per_token = 0;
  uint64_t parameters = 0;  // of all layers, the embedding and the head
};

// Reads the checkpoint's configuration. Errors: unsupported (architecture or field, named with its value),
// malformed (a missing tensor, a shape that contradicts the configuration).
Result<DecoderSpec> read_decoder_spec(const formats::Checkpoint& checkpoint);
Result<ModelCost> model_cost(const DecoderSpec& spec, const formats::Checkpoint& checkpoint);

// Whether a rank holds none of it (model/shard_plan.h).
inline bool is_elsewhere(const AttentionSpec& spec) {
  return spec.query_heads == 0;
}
inline bool is_elsewhere(const LatentAttentionSpec& spec) {
  return spec.heads == 0;
}
inline bool is_elsewhere(const DeltaNetSpec& spec) {
  return spec.op.value_heads == 0;
}
inline bool is_elsewhere(const DenseSpec& spec) {
  return spec.width == 0;
}
inline bool is_elsewhere(const MixtureSpec& spec) {
  return spec.gate.empty() && !spec.shared;
}

// What one layer keeps in an engine's cache.
uint64_t kv_values_per_token(const LayerSpec& layer);
uint64_t state_floats(const LayerSpec& layer);  // per sequence
bool has_recurrent_layers(const DecoderSpec& spec);
bool has_long_frequencies(const DecoderSpec& spec);

// Token ids that end an answer, from generation_config.json, config.json or GGUF metadata; may be empty.
std::vector<int32_t> end_of_sequence_ids(const formats::Checkpoint& checkpoint);

}  // namespace shoal::model
