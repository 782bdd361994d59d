// How a model is cut over the ranks of a tensor-parallel stage: what of each layer a rank holds, and the
// DecoderSpec that the rank then runs, which is that of a smaller model whose outputs are summed over the
// ranks. Pure, and the same on every machine: planner, memory estimates and loading all ask here.
//
// Attention is cut by heads, a feed-forward by columns of its width (whole blocks of the type of `down`,
// whose columns they are), a mixture by columns of each expert or by experts, the head by rows of the
// vocabulary. Embedding, norms, routers and what latent attention compresses are whole on every rank. Where
// there is less to give than ranks, some hold nothing of a layer and add zeros
// (docs/decisions/0012-tensor-parallel.md).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/source.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

// What one rank holds of a layer. A count of 0 is nothing.
struct LayerShard {
  // Query heads and the kv heads they read; of latent attention its heads, with no kv heads; of a delta net
  // its value heads and the key heads they go with.
  engine::Slice heads, kv_heads;
  engine::Slice columns;         // of the width of the feed-forward, or of each expert
  engine::Slice experts;         // of a mixture
  engine::Slice shared_columns;  // of the expert that every row shares
  bool adds_expert_bias = false;
};

struct ShardPlan {
  std::vector<LayerShard> layers;
  std::vector<uint32_t> head_rows;  // of the vocabulary, for every rank, in order
  engine::Slice own_head_rows;
};

inline constexpr uint32_t kMaxRanks = 64;

// Errors: invalid_argument (a rank, a count or shares that make no sense), malformed (a missing tensor).
Result<ShardPlan> shard_plan(const DecoderSpec& spec, const formats::Checkpoint& checkpoint,
                             const engine::TensorShard& shard);

// `spec` as the rank sees it: fewer heads, narrower layers, refs to parts of tensors. model_cost(),
// state_floats() and kv_values_per_token() of it are the rank's. For one rank it is `spec`.
Result<DecoderSpec> shard_spec(const DecoderSpec& spec, const formats::Checkpoint& checkpoint,
                               const engine::TensorShard& shard);

// How far ranks can share a layer, and which of its LayerCost::weight_bytes they do; for the planner. Of
// weight_bytes, what is neither mixer_bytes nor whole_bytes belongs to the feed-forward and is cut.
struct LayerCuts {
  // Equal pieces that the heads and their kv heads are divided in.
  uint32_t head_pieces = 0, kv_pieces = 0;
  uint32_t width_pieces = 0;  // of the feed-forward: blocks of its width, or experts where those stay whole
  uint64_t mixer_bytes = 0;   // cut by heads
  uint64_t expert_bytes = 0;  // of experts that a router chooses from
  uint64_t whole_bytes = 0;   // on every rank: norms, routers, what compresses
  bool kv_is_whole = false;   // latent rows: every rank keeps them
  uint32_t sums = 2;          // of rows over the ranks, each step
};
Result<std::vector<LayerCuts>> layer_cuts(const DecoderSpec& spec, const formats::Checkpoint& checkpoint);

// Neighbouring columns of a weight that only go together, if it is to keep its type. Error: malformed (no
// such tensor).
Result<uint32_t> columns_together(const formats::Checkpoint& checkpoint, const TensorRef& ref);

// Whether all key heads of a delta net are on every rank that has value heads: theirs are not neighbours.
inline bool keeps_key_heads(const engine::DeltaNetOp& op) {
  return op.tiled && op.value_heads != op.key_heads;
}

// Divides `size` things over ranks, in order and in whole `granule`s but for the last, near to `shares`
// (largest remainder, ties to the lower rank). No rank gets nothing if there are granules enough.
std::vector<engine::Slice> divide(uint32_t size, uint32_t granule, std::span<const uint32_t> shares);

}  // namespace shoal::model
