#include "serving/demand.h"

#include <algorithm>

#include "base/limits.h"

namespace shoal::serving {
namespace {

constexpr uint64_t kProcessBytes = 48 * limits::kMiB;  // code, allocator, thread stacks, frame buffers
constexpr uint32_t kUsualContext = 16384;
constexpr uint32_t kLeastContext = 2048;
constexpr uint32_t kUsualConcurrency = 4;
// Conversations are mostly shorter than the context that is held for them, so more of them share it; but a
// recurrent state is of one size however short its sequence is.
constexpr uint32_t kStateSlotsPerConversation = 4;

uint64_t overhead_bytes(const ModelCard& card) {
  const uint64_t logits = limits::kMaxActiveSequences * uint64_t{card.vocabulary_size} * sizeof(float);
  return kProcessBytes + card.scratch_bytes + logits;
}

}  // namespace

double kv_bytes_per_value(engine::KvType type) {
  switch (type) {
    case engine::KvType::f32:
      return 4;
    case engine::KvType::f16:
      return 2;
    case engine::KvType::q8:
      return 34.0 / 32;  // a 16-bit scale for 32 values
  }
  return 4;
}

planner::ModelDemand model_demand(const ModelCard& card, engine::KvType kv_type) {
  planner::ModelDemand demand;
  demand.name = card.stored.name;
  for (size_t index = 0; index < card.cost.layers.size(); ++index) {
    const model::LayerCost& layer = card.cost.layers[index];
    const model::LayerCuts& cuts = card.cuts[index];
    const double kv_bytes = static_cast<double>(layer.kv_values_per_token) * kv_bytes_per_value(kv_type);
    demand.layers.push_back({.weight_bytes = layer.weight_bytes,
                             .kv_bytes_per_token = static_cast<uint64_t>(kv_bytes + 0.5),
                             .flops_per_token = layer.flops_per_token,
                             .active_bytes = layer.active_bytes,
                             .state_bytes_per_sequence = layer.state_bytes,
                             .expert_bytes = cuts.expert_bytes,
                             .query_heads = cuts.head_pieces,
                             .kv_heads = cuts.kv_pieces,
                             .attention_bytes = cuts.mixer_bytes,
                             .feed_forward_units = cuts.width_pieces,
                             .replicated_bytes = cuts.whole_bytes,
                             .kv_replicated = cuts.kv_is_whole,
                             .all_reduces = cuts.sums});
  }
  demand.embedding_bytes = card.cost.embedding_bytes;
  demand.head_bytes = card.cost.head_bytes;
  demand.tied_embedding = card.tied;
  demand.head_flops_per_token = card.cost.head_flops_per_token;
  demand.hidden_bytes_per_token = uint64_t{card.hidden_size} * sizeof(float);
  demand.overhead_bytes_per_stage = overhead_bytes(card);
  return demand;
}

std::vector<planner::PlanOptions> plan_attempts(const ModelCard& card, const PlaceOptions& wanted) {
  std::vector<planner::PlanOptions> attempts;
  uint32_t context = std::min(card.context_tokens, wanted.context_tokens.value_or(kUsualContext));
  const auto add = [&](uint32_t concurrency) {
    planner::PlanOptions options;
    options.context_tokens = context;
    options.concurrency = concurrency;
    if (card.recurrent) options.state_slots = concurrency * kStateSlotsPerConversation;
    options.minimum_nodes = std::max(1u, wanted.minimum_nodes);
    // Ranks that share a layer add up in another order than one node does, so they are for those who ask.
    options.strategy =
        wanted.strategy == planner::Strategy::automatic ? planner::Strategy::pipeline : wanted.strategy;
    options.objective = wanted.objective;
    options.wire = wanted.wire;
    attempts.push_back(options);
  };
  if (wanted.concurrency) {
    add(*wanted.concurrency);
    return attempts;
  }
  for (uint32_t concurrency = kUsualConcurrency; concurrency > 0; concurrency /= 2) add(concurrency);
  while (!wanted.context_tokens && context / 2 >= kLeastContext) {
    context /= 2;
    add(1);
  }
  return attempts;
}

}  // namespace shoal::serving
