// Grouped-query attention of one layer: [T, D] normed -> heads [T, H*d] -> [T, D].
#pragma once

#include <optional>
#include <vector>

#include "model/layers/loader.h"

namespace shoal::model {

inline engine::RopeOp rope_op(const RopeSpec& spec) {
  return {.pairs = spec.pairs,
          .dimensions = spec.dimensions,
          .magnitude = spec.magnitude,
          .inverse_frequencies = spec.inverse_frequencies,
          .long_inverse_frequencies = spec.long_inverse_frequencies,
          .long_after_tokens = spec.long_after_tokens};
}

template <engine::Backend B>
typename B::Tensor biased(B& b, const typename B::Tensor& x, const std::optional<typename B::Weight>& bias) {
  return bias ? b.add_bias(x, *bias) : x;
}

// What a rank adds that holds nothing of a mixer or feed-forward: zeros. The bias comes after the sum.
template <engine::Backend B>
class NothingLayer {
 public:
  using Tensor = typename B::Tensor;

  static Result<NothingLayer> load(const Loader<B>& loader, const TensorRef& bias) {
    NothingLayer layer;
    SHOAL_TRY_VOID(loader.vector(bias, engine::VectorMap::none, layer.bias_));
    return layer;
  }

  Tensor mix(B&, const Tensor& x, const engine::StepView&, uint32_t) const { return x; }
  Tensor project(B& b, const Tensor& x) const { return biased(b, b.all_reduce(b.zeros(x)), bias_); }
  Tensor run(B& b, const Tensor& x) const { return project(b, x); }

 private:
  std::optional<typename B::Weight> bias_;
};

// `spec` must outlive the layer.
template <engine::Backend B>
class AttentionLayer {
 public:
  using Tensor = typename B::Tensor;
  using Weight = typename B::Weight;

  static Result<AttentionLayer> load(const Loader<B>& loader, const DecoderSpec& model,
                                     const AttentionSpec& spec) {
    AttentionLayer layer(spec, model.norm_epsilon);
    const std::pair<const TensorRef&, Weight&> rows[] = {
        {spec.query, layer.query_}, {spec.key, layer.key_}, {spec.value, layer.value_}};
    for (const auto& [ref, weight] : rows) SHOAL_TRY_VOID(loader.matrix(ref, weight));
    SHOAL_TRY_VOID(loader.matrix(spec.gate, layer.gate_));
    SHOAL_TRY_VOID(loader.matrix(spec.output, layer.output_));
    const std::pair<const TensorRef&, std::optional<Weight>&> vectors[] = {
        {spec.query_bias, layer.query_bias_}, {spec.key_bias, layer.key_bias_},
        {spec.value_bias, layer.value_bias_}, {spec.output_bias, layer.output_bias_},
        {spec.gate_bias, layer.gate_bias_},   {spec.sinks, layer.sinks_}};
    for (const auto& [ref, weight] : vectors)
      SHOAL_TRY_VOID(loader.vector(ref, engine::VectorMap::none, weight));
    SHOAL_TRY_VOID(loader.vector(spec.query_norm, model.norm_map, layer.query_norm_));
    SHOAL_TRY_VOID(loader.vector(spec.key_norm, model.norm_map, layer.key_norm_));
    return layer;
  }

  Tensor mix(B& b, const Tensor& x, const engine::StepView& step, uint32_t index) const {
    const AttentionSpec& spec = *spec_;
    std::vector<const Weight*> projections = {&query_, &key_, &value_};
    if (gate_) projections.push_back(&*gate_);
    const std::vector<Tensor> projected = b.linears(x, projections);
    Tensor query = biased(b, projected[0], query_bias_);  // [T, H*d]
    Tensor key = biased(b, projected[1], key_bias_);      // [T, G*d]
    Tensor value = biased(b, projected[2], value_bias_);
    if (query_norm_) query = b.head_norm(query, *query_norm_, spec.head_dim, epsilon_);
    if (key_norm_) key = b.head_norm(key, *key_norm_, spec.head_dim, epsilon_);
    if (spec.rope.dimensions != 0) {
      const engine::RopeOp rope = rope_op(spec.rope);
      query = b.rope(query, step, rope, spec.head_dim);
      key = b.rope(key, step, rope, spec.head_dim);
    }
    const engine::AttentionOp op{.layer = index,
                                 .query_heads = spec.query_heads,
                                 .kv_heads = spec.kv_heads,
                                 .head_dim = spec.head_dim,
                                 .scale = spec.scale,
                                 .window = spec.window,
                                 .softcap = spec.softcap,
                                 .group_heads = spec.group_heads,
                                 .skipped_heads = spec.skipped_heads};
    const Tensor heads = b.attend(query, key, value, step, op, sinks_ ? &*sinks_ : nullptr);
    if (!gate_) return heads;
    const Tensor gate = biased(b, projected[3], gate_bias_);
    return b.activate_multiply(gate, heads, {.kind = engine::Activation::Kind::sigmoid});
  }

  Tensor project(B& b, const Tensor& heads) const {
    return biased(b, b.all_reduce(b.linear(heads, output_)), output_bias_);
  }

 private:
  AttentionLayer(const AttentionSpec& spec, float epsilon) : spec_(&spec), epsilon_(epsilon) {}

  const AttentionSpec* spec_;
  float epsilon_;
  Weight query_, key_, value_, output_;
  std::optional<Weight> gate_;
  std::optional<Weight> query_bias_, key_bias_, value_bias_, output_bias_, gate_bias_;
  std::optional<Weight> query_norm_, key_norm_, sinks_;
};

}  // namespace shoal::model
