// Multi-head latent attention of one layer (DeepSeek-V2, https://arxiv.org/abs/2405.04434), always with the
// key and value projections absorbed, in prefill as in decode: so a row's result does not depend on how its
// prompt was cut.
#pragma once

#include <optional>
#include <vector>

#include "model/layers/attention.h"

namespace shoal::model {

// `spec` must outlive the layer.
template <engine::Backend B>
class LatentAttentionLayer {
 public:
  using Tensor = typename B::Tensor;
  using Weight = typename B::Weight;

  static Result<LatentAttentionLayer> load(const Loader<B>& loader, const DecoderSpec& model,
                                           const LatentAttentionSpec& spec) {
    LatentAttentionLayer layer(spec);
    if (spec.query_rank == 0) {
      SHOAL_TRY_VOID(loader.matrix(spec.query, layer.query_));
    } else {
      SHOAL_TRY_VOID(loader.matrix(spec.query_down, layer.query_down_.emplace()));
      SHOAL_TRY_VOID(loader.vector(spec.query_down_norm, model.norm_map, layer.query_down_norm_));
      SHOAL_TRY_VOID(loader.matrix(spec.query_up, layer.query_));
    }
    SHOAL_TRY_VOID(loader.matrix(spec.latent_down, layer.latent_down_));
    SHOAL_TRY_VOID(loader.vector(spec.latent_norm, model.norm_map, layer.latent_norm_));
    SHOAL_TRY_VOID(loader.stack(spec.key_up, layer.key_up_));
    SHOAL_TRY_VOID(loader.stack(spec.value_up, layer.value_up_));
    SHOAL_TRY_VOID(loader.matrix(spec.output, layer.output_));
    const std::pair<const TensorRef&, std::optional<Weight>&> biases[] = {
        {spec.query_down_bias, layer.query_down_bias_},
        {spec.latent_down_bias, layer.latent_down_bias_},
        {spec.output_bias, layer.output_bias_}};
    for (const auto& [ref, weight] : biases)
      SHOAL_TRY_VOID(loader.vector(ref, engine::VectorMap::none, weight));
    return layer;
  }

  Tensor mix(B& b, const Tensor& x, const engine::StepView& step, uint32_t index) const {
    const LatentAttentionSpec& spec = *spec_;
    const uint32_t rotated = spec.rope.dimensions;
    const Weight* const projections[] = {query_down_ ? &*query_down_ : &query_, &latent_down_};
    const std::vector<Tensor> projected = b.linears(x, projections);
    Tensor query = projected[0];  // [T, H*(n+r)]
    if (query_down_) {
      query = biased(b, query, query_down_bias_);
      query = b.linear(b.rms_norm(query, query_down_norm_, spec.norm_epsilon), query_);
    }
    const Tensor down = biased(b, projected[1], latent_down_bias_);  // [T, R+r]
    const uint32_t query_dim = spec.nope_dim + rotated, down_dim = spec.latent_rank + rotated;
    const engine::RopeOp rope = rope_op(spec.rope);
    const Tensor rotated_query =
        b.rope(b.head_columns(query, query_dim, spec.nope_dim, rotated), step, rope, rotated);
    const Tensor rotated_key =
        b.rope(b.head_columns(down, down_dim, spec.latent_rank, rotated), step, rope, rotated);
    const Tensor latent =
        b.rms_norm(b.head_columns(down, down_dim, 0, spec.latent_rank), latent_norm_, spec.norm_epsilon);
    const Tensor absorbed =
        b.head_linear(b.head_columns(query, query_dim, 0, spec.nope_dim), key_up_);  // [T, H*R]
    const engine::LatentAttentionOp op{.layer = index,
                                       .query_heads = spec.heads,
                                       .latent_rank = spec.latent_rank,
                                       .rope_dim = rotated,
                                       .scale = spec.scale};
    return b.head_linear(b.attend_latent(absorbed, rotated_query, latent, rotated_key, step, op), value_up_);
  }

  Tensor project(B& b, const Tensor& heads) const {
    return biased(b, b.all_reduce(b.linear(heads, output_)), output_bias_);
  }

 private:
  explicit LatentAttentionLayer(const LatentAttentionSpec& spec) : spec_(&spec) {}

  const LatentAttentionSpec* spec_;
  Weight query_;  // from x, or from the down-projected query
  std::optional<Weight> query_down_;
  Weight query_down_norm_, latent_down_, latent_norm_, key_up_, value_up_, output_;
  std::optional<Weight> query_down_bias_, latent_down_bias_, output_bias_;
};

}  // namespace shoal::model
