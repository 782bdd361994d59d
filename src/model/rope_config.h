// Rotary positions from a configuration: config.json in both styles (rope_theta and rope_scaling, or
// rope_parameters, flat or by type of layer), and GGUF metadata. Semantics are those of `transformers` 5.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "model/decoder_spec.h"
#include "model/fields.h"
#include "model/metadata.h"

namespace shoal::model {

struct RopeOptions {
  engine::RopePairs pairs = engine::RopePairs::halves;
  uint32_t head_dim = 0;  // values of a head that positions may rotate
  uint32_t context_tokens =
      0;  // max_position_embeddings, from which scalings are derived where they do not say
  double default_theta = 10000;

  // config.json only.
  // The share of head_dim that rotates when partial_rotary_factor is absent; nullopt: always all, and the
  // field is refused.
  std::optional<double> partial_factor = {};
  // "full_attention" or "sliding_attention": that part of rope_parameters, and rope_scaling for full
  // attention alone. Empty: all layers rotate alike.
  std::string_view layer_type = {};
  std::string_view theta_field = "rope_theta";
  std::optional<uint32_t> original_context = {};  // a family's original_max_position_embeddings
  bool yarn_means_longrope = false;               // Phi-3's old files

  // GGUF only.
  std::string_view theta_key = "rope.freq_base";
  double default_factor = 1;       // where rope.scaling.factor is absent
  bool scaled = true;              // false: rope.scaling.* is for other layers
  bool yarn_whole_indices = true;  // RopeScaling::whole_indices, for which GGUF has no key
  // DeepSeek: yarn_log_multiplier is about the scores (read_yarn_score_factor), and cos and sin stay as they
  // are.
  bool log_multiplier_is_for_scores = false;
};

Result<RopeSpec> read_rope(Fields& fields, const RopeOptions& options);
// Also the tensors rope_freqs, rope_factors_short and rope_factors_long, if there are any.
Result<RopeSpec> read_rope(Metadata& metadata, const RopeOptions& options);

// (0.1 * mscale_all_dim * ln(factor) + 1)^2, by which DeepSeek multiplies the scale of its scores; 1 where
// the configuration has no such field. Of a GGUF, from yarn_log_multiplier, which is 0.1 * mscale_all_dim.
Result<double> read_yarn_score_factor(Fields& fields);
Result<double> read_yarn_score_factor(Metadata& metadata);

}  // namespace shoal::model
