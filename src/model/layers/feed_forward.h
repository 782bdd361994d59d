// The feed-forward of one layer, [T, D] normed -> [T, D]: dense, or a mixture of experts with or without an
// expert that every row shares.
#pragma once

#include <optional>
#include <vector>

#include "model/layers/attention.h"

namespace shoal::model {

// `spec` must outlive the layer.
template <engine::Backend B>
class DenseLayer {
 public:
  using Tensor = typename B::Tensor;
  using Weight = typename B::Weight;

  static Result<DenseLayer> load(const Loader<B>& loader, const DenseSpec& spec) {
    DenseLayer layer(spec);
    SHOAL_TRY_VOID(loader.matrix(spec.gate, layer.gate_));
    SHOAL_TRY_VOID(loader.matrix(spec.up, layer.up_));
    SHOAL_TRY_VOID(loader.matrix(spec.down, layer.down_));
    const std::pair<const TensorRef&, std::optional<Weight>&> biases[] = {{spec.gate_bias, layer.gate_bias_},
                                                                          {spec.up_bias, layer.up_bias_},
                                                                          {spec.down_bias, layer.down_bias_}};
    for (const auto& [ref, weight] : biases)
      SHOAL_TRY_VOID(loader.vector(ref, engine::VectorMap::none, weight));
    return layer;
  }

  Tensor run(B& b, const Tensor& x) const { return biased(b, b.all_reduce(partial(b, x)), down_bias_); }

  // This rank's share of the sum, without the last bias.
  Tensor partial(B& b, const Tensor& x) const {
    const Weight* const projections[] = {&gate_, &up_};
    const std::vector<Tensor> both = b.linears(x, projections);  // [T, F] each
    const Tensor gate = biased(b, both[0], gate_bias_), up = biased(b, both[1], up_bias_);
    return b.linear(b.activate_multiply(gate, up, spec_->activation), down_);
  }

 private:
  explicit DenseLayer(const DenseSpec& spec) : spec_(&spec) {}

  const DenseSpec* spec_;
  Weight gate_, up_, down_;
  std::optional<Weight> gate_bias_, up_bias_, down_bias_;
};

// `spec` must outlive the layer.
template <engine::Backend B>
class MixtureLayer {
 public:
  using Tensor = typename B::Tensor;
  using Weight = typename B::Weight;

  static Result<MixtureLayer> load(const Loader<B>& loader, const MixtureSpec& spec) {
    MixtureLayer layer(spec);
    SHOAL_TRY_VOID(loader.exact_matrix(spec.router, layer.router_));
    SHOAL_TRY_VOID(loader.vector(spec.router_bias, engine::VectorMap::none, layer.router_bias_));
    SHOAL_TRY_VOID(loader.vector(spec.choice_bias, engine::VectorMap::none, layer.choice_bias_));
    if (!spec.gate.empty()) SHOAL_TRY_VOID(layer.load_experts(loader));
    if (spec.shared) {
      SHOAL_TRY(DenseLayer<B> shared, DenseLayer<B>::load(loader, *spec.shared));
      layer.shared_.emplace(std::move(shared));
    }
    SHOAL_TRY_VOID(loader.matrix(spec.shared_gate, layer.shared_gate_));
    return layer;
  }

  Tensor run(B& b, const Tensor& x) const {
    if (spec_->gate.empty()) return b.all_reduce(shared(b, x));
    const Tensor logits = biased(b, b.linear(x, router_), router_bias_);  // [T, E]
    const auto routing = b.route(logits, choice_bias_ ? &*choice_bias_ : nullptr, spec_->router_op);
    const Tensor sum = b.experts(x, routing, experts_, spec_->activation);
    return b.all_reduce(shared_ ? b.add(sum, shared(b, x)) : sum);
  }

 private:
  explicit MixtureLayer(const MixtureSpec& spec) : spec_(&spec) {}

  Result<> load_experts(const Loader<B>& loader) {
    SHOAL_TRY_VOID(loader.stack(spec_->gate, experts_.gate));
    SHOAL_TRY_VOID(loader.stack(spec_->up, experts_.up));
    SHOAL_TRY_VOID(loader.stack(spec_->down, experts_.down));
    SHOAL_TRY_VOID(loader.vectors(spec_->gate_bias, experts_.gate_bias));
    SHOAL_TRY_VOID(loader.vectors(spec_->up_bias, experts_.up_bias));
    SHOAL_TRY_VOID(loader.vectors(spec_->down_bias, experts_.down_bias));
    experts_.first_expert = spec_->first_expert;
    return {};
  }

  Tensor shared(B& b, const Tensor& x) const {
    const Tensor shared = shared_->partial(b, x);
    return shared_gate_ ? b.gate_rows(shared, b.linear(x, *shared_gate_)) : shared;
  }

  const MixtureSpec* spec_;
  Weight router_;
  std::optional<Weight> router_bias_, choice_bias_;
  engine::ExpertWeights<Weight> experts_;
  std::optional<DenseLayer<B>> shared_;
  std::optional<Weight> shared_gate_;
};

}  // namespace shoal::model
