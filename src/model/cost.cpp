// What a model asks of a machine: sums over its tensors.
#include <algorithm>

#include "model/decoder_spec.h"
#include "model/tensors.h"

namespace shoal::model {
namespace {

using formats::TensorInfo;
using Shape = std::vector<uint64_t>;

double expert_share(const LayerSpec& layer) {
  const auto* mixture = std::get_if<MixtureSpec>(&layer.feed_forward);
  if (!mixture) return 1;
  return static_cast<double>(mixture->router_op.used) / static_cast<double>(mixture->router_op.expert_count);
}

Result<LayerCost> layer_cost(const DecoderSpec& spec, const LayerSpec& layer,
                             const formats::Checkpoint& checkpoint) {
  LayerCost cost;
  Result<> first_fault;
  double active_bytes = 0, flops = 0;
  const double share = expert_share(layer);
  visit_layer_tensors(spec, layer, [&](const TensorRef& ref, const Shape& shape, TensorRole role) {
    if (!first_fault) return;
    auto tensor = find_tensor(checkpoint, ref, shape);
    if (!tensor) {
      first_fault = std::unexpected(std::move(tensor).error());
      return;
    }
    const uint64_t bytes = bytes_of_part(**tensor, shape), values = value_count(shape);
    const double used = role == TensorRole::expert ? share : 1;
    cost.weight_bytes += bytes;
    cost.parameters += values;
    active_bytes += used * static_cast<double>(bytes);
    if (shape.size() == 2) flops += used * 2 * static_cast<double>(values);
  });
  SHOAL_TRY_VOID(first_fault);
  cost.active_bytes = static_cast<uint64_t>(active_bytes);
  cost.flops_per_token = static_cast<uint64_t>(flops);
  cost.kv_values_per_token = kv_values_per_token(layer);
  cost.state_bytes = state_floats(layer) * sizeof(float);
  return cost;
}

}  // namespace

uint64_t kv_values_per_token(const LayerSpec& layer) {
  if (const auto* attention = std::get_if<AttentionSpec>(&layer.mixer))
    return uint64_t{2} * attention->kv_heads * attention->head_dim;
  if (const auto* latent = std::get_if<LatentAttentionSpec>(&layer.mixer))
    return is_elsewhere(*latent) ? 0 : uint64_t{latent->latent_rank} + latent->rope.dimensions;
  return 0;
}

uint64_t state_floats(const LayerSpec& layer) {
  const auto* delta = std::get_if<DeltaNetSpec>(&layer.mixer);
  if (!delta) return 0;
  const engine::DeltaNetOp& op = delta->op;
  return uint64_t{op.channels()} * (op.kernel - 1) + uint64_t{op.value_heads} * op.key_dim * op.value_dim;
}

bool has_recurrent_layers(const DecoderSpec& spec) {
  return std::ranges::any_of(spec.layers, [](const LayerSpec& layer) { return state_floats(layer) > 0; });
}

bool has_long_frequencies(const DecoderSpec& spec) {
  return std::ranges::any_of(spec.layers, [](const LayerSpec& layer) {
    const auto* attention = std::get_if<AttentionSpec>(&layer.mixer);
    return attention && !attention->rope.long_inverse_frequencies.empty();
  });
}

Result<ModelCost> model_cost(const DecoderSpec& spec, const formats::Checkpoint& checkpoint) {
  ModelCost cost{};
  for (const auto& layer : spec.layers) {
    SHOAL_TRY(cost.layers.emplace_back(), layer_cost(spec, layer, checkpoint));
    cost.parameters += cost.layers.back().parameters;
  }
  const Shape vocabulary = {spec.vocabulary_size, spec.hidden_size};
  SHOAL_TRY(const TensorInfo* embedding, find_tensor(checkpoint, spec.embedding, vocabulary));
  SHOAL_TRY(const TensorInfo* norm, find_tensor(checkpoint, spec.final_norm, {spec.hidden_size}));
  SHOAL_TRY(const TensorInfo* head, find_tensor(checkpoint, spec.head, vocabulary));
  cost.embedding_bytes = embedding->stored_bytes();
  const uint64_t head_rows = spec.head.part_rows.size(spec.vocabulary_size);
  cost.head_bytes = bytes_of_part(*head, {head_rows, spec.hidden_size});
  if (head != embedding) cost.head_bytes += norm->stored_bytes();
  cost.head_flops_per_token = uint64_t{2} * head_rows * spec.hidden_size;
  cost.parameters += value_count(vocabulary) * (spec.tied() ? 1 : 2) + spec.hidden_size;
  return cost;
}

}  // namespace shoal::model
