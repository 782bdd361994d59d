// The gated delta net of one layer (https://arxiv.org/abs/2412.06464) as Qwen3-Next has it: projections, the
// op with its convolution and state, a norm of each value head gated by silu(z), the output projection.
#pragma once

#include <vector>

#include "model/layers/loader.h"

namespace shoal::model {

// `spec` must outlive the layer.
template <engine::Backend B>
class DeltaNetLayer {
 public:
  using Tensor = typename B::Tensor;
  using Weight = typename B::Weight;

  static Result<DeltaNetLayer> load(const Loader<B>& loader, const DecoderSpec& model,
                                    const DeltaNetSpec& spec) {
    DeltaNetLayer layer(spec, model.norm_epsilon);
    const std::pair<const TensorRef&, Weight&> rows[] = {{spec.query, layer.query_},
                                                         {spec.key, layer.key_},
                                                         {spec.value, layer.value_},
                                                         {spec.gate, layer.gate_},
                                                         {spec.decay_input, layer.decay_input_},
                                                         {spec.rate_input, layer.rate_input_}};
    for (const auto& [ref, weight] : rows) SHOAL_TRY_VOID(loader.matrix(ref, weight));
    SHOAL_TRY_VOID(loader.matrix(spec.output, layer.output_));
    const std::pair<const TensorRef&, Weight&> vectors[] = {{spec.decay_bias, layer.decay_bias_},
                                                            {spec.norm, layer.norm_}};
    for (const auto& [ref, weight] : vectors)
      SHOAL_TRY_VOID(loader.vector(ref, engine::VectorMap::none, weight));
    SHOAL_TRY_VOID(loader.vectors(spec.taps, engine::VectorMap::none, layer.taps_));
    SHOAL_TRY_VOID(loader.vector(spec.decay, spec.decay_map, layer.decay_));
    return layer;
  }

  Tensor mix(B& b, const Tensor& x, const engine::StepView& step, uint32_t index) const {
    const Weight* const projections[] = {&query_, &key_, &value_, &gate_, &decay_input_, &rate_input_};
    const std::vector<Tensor> in = b.linears(x, projections);
    engine::DeltaNetOp op = spec_->op;
    op.layer = index;
    const Tensor values =
        b.delta_net(in[0], in[1], in[2], in[4], in[5], taps_, decay_bias_, decay_, step, op);  // [T, V*v]
    return b.activate_multiply(in[3], b.head_norm(values, norm_, op.value_dim, epsilon_), {});
  }

  Tensor project(B& b, const Tensor& values) const { return b.all_reduce(b.linear(values, output_)); }

 private:
  DeltaNetLayer(const DeltaNetSpec& spec, float epsilon) : spec_(&spec), epsilon_(epsilon) {}

  const DeltaNetSpec* spec_;
  float epsilon_;
  Weight query_, key_, value_, gate_, decay_input_, rate_input_, output_;
  Weight taps_, decay_bias_, decay_, norm_;
};

}  // namespace shoal::model
