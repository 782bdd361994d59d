// Qwen3-Next and Qwen3.5: layers of gated delta nets with a layer of gated attention after every few. What
// their pages share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/config.h"
#include "model/decoder_spec.h"
#include "model/fields.h"

namespace shoal::model {

// What the layers of one model share; no names.
struct HybridModel {
  Sizes sizes;
  RopeSpec rope;
  bool attention_bias = false;
  engine::Activation activation;
  engine::DeltaNetOp delta;
  std::vector<bool> recurrent;  // of each layer: a delta net, else attention
  std::vector<bool> mixture;    // of each layer: a mixture, else dense
  uint32_t dense_width = 0;
  engine::RouterOp router;
  uint32_t expert_width = 0;
  uint32_t shared_width = 0;  // of the expert that every row shares; 0: none
};

struct HybridDefaults {
  SizeDefaults sizes;
  uint32_t dense_width = 0;
};

// Everything but the mixtures: sizes, positions, layer_types or full_attention_interval, linear_*.
Result<HybridModel> read_hybrid(Fields& fields, const HybridDefaults& defaults);

struct HybridMixtureDefaults {
  uint32_t experts = 0;
  uint32_t used = 0;
};
// num_experts, num_experts_per_tok, moe_intermediate_size and shared_expert_intermediate_size. With 0 experts
// no layer is a mixture.
Result<> read_hybrid_mixture(Fields& fields, const HybridMixtureDefaults& defaults, HybridModel& model);

// `prefix` is "model." or what stands in its place. The projections of the delta nets are left to
// `name_projections`, called with "<prefix>layers.3.linear_attn.".
using NameProjections = void (*)(DeltaNetSpec& delta, const std::string& prefix, uint64_t hidden_size);
DecoderSpec hybrid_spec(const std::string& architecture, const HybridModel& model, bool tied,
                        const std::string& prefix, const formats::Checkpoint& checkpoint,
                        NameProjections name_projections);

// Queries and gates of a layer, per head d rows of the one, then of the other, in a matrix [H*2d, D].
void name_gated_query(AttentionSpec& attention, const std::string& name, uint64_t hidden_size);
// Queries, keys and values of a delta net, one after the other in a matrix [channels, D].
void name_plain_channels(DeltaNetSpec& delta, const std::string& name, uint64_t hidden_size);
// Per key head its query, key, values and gates: [K*(2k + 2v*V/K), D].
void name_grouped_channels(DeltaNetSpec& delta, const std::string& name, uint64_t hidden_size);
// Per key head the rates b, then the decays a, of its value heads: [2V, D].
void name_grouped_rates(DeltaNetSpec& delta, const std::string& name, uint64_t hidden_size);

}  // namespace shoal::model
