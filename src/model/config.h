// Reading the numbers of a model from config.json or GGUF metadata: every one bounded by base/limits.h, every
// Error naming the field and the value found, and every field that would change the maths either used or
// refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

// What a dense decoder with grouped-query attention and rotary positions is made of.
struct DenseConfig {
  uint32_t layers = 0;
  uint32_t hidden_size = 0;
  uint32_t feed_forward_width = 0;
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t context_tokens = 0;
  uint32_t vocabulary_size = 0;  // 0: not stated, the embedding decides
  float norm_epsilon = 0;
  bool tied = false;            // the head is the embedding (config.json only)
  bool attention_bias = false;  // config.json only
  bool mlp_bias = false;        // config.json only
  RopeSpec rope;
};

// What a family of models means by a field that is absent from config.json.
struct DenseDefaults {
  std::optional<uint32_t> kv_heads;  // nullopt: as many as query heads
  std::optional<uint32_t> head_dim;  // nullopt: hidden size / query heads; an explicit null always means that
  uint32_t context_tokens = 2048;
};

// A config.json in either style: rope_theta and rope_scaling, or rope_parameters.
Result<DenseConfig> read_dense_config(const JsonObject& config, const DenseDefaults& defaults);

// GGUF metadata under "<architecture>.", and the tensor rope_freqs.weight if there is one.
Result<DenseConfig> read_dense_metadata(const formats::Checkpoint& checkpoint, std::string_view architecture,
                                        engine::RopePairs pairs);

// A spec with its sizes filled in and `layers` alike; names of tensors are still empty.
DecoderSpec make_dense_spec(std::string_view architecture, const DenseConfig& config);

// The names that nearly all dense models use in safetensors and in GGUF: two norms and seven matrices.
LayerTensors safetensors_layer_names(uint32_t layer);
LayerTensors gguf_layer_names(uint32_t layer);
// Adds the biases of a GGUF layer that the file has (their presence is the only sign).
void add_gguf_biases(uint32_t layer, const formats::Checkpoint& checkpoint, LayerTensors& names);

}  // namespace shoal::model
