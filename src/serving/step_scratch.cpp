#include "serving/step_scratch.h"

#include <algorithm>

#include "base/limits.h"

namespace shoal::serving {
namespace {

// Rows at their experts are computed in goes of about so many values.
constexpr uint64_t kExpertFloats = 16 << 20;

// Queries, their gate and what was attended to; keys and values.
uint64_t mixer_floats(const model::AttentionSpec& attention) {
  const uint64_t query_tensors = attention.gate.empty() ? 2 : 3;
  return (query_tensors * attention.query_heads + 2ull * attention.kv_heads) * attention.head_dim;
}

// Queries and their parts, both forms of the latent, and per head a latent row before and after attention.
uint64_t mixer_floats(const model::LatentAttentionSpec& latent) {
  const uint64_t rotated = latent.rope.dimensions;
  const uint64_t per_head = 2 * (latent.nope_dim + rotated) + 2ull * latent.latent_rank + latent.value_dim;
  return latent.heads * per_head + 2 * (latent.latent_rank + rotated) + 2ull * latent.query_rank;
}

// Channels before and after the convolution; values, their gate and their result.
uint64_t mixer_floats(const model::DeltaNetSpec& delta) {
  const uint64_t heads = delta.op.value_heads;
  return 2ull * delta.op.channels() + 3 * heads * delta.op.value_dim + 4 * heads;
}

uint64_t feed_forward_floats(const model::DenseSpec& dense, uint64_t, uint64_t) {
  return 3ull * dense.width;
}

uint64_t feed_forward_floats(const model::MixtureSpec& mixture, uint64_t hidden_size, uint64_t rows) {
  const uint64_t at_experts = mixture.router_op.used * (3ull * mixture.width + hidden_size);
  const uint64_t shared = mixture.shared ? 3ull * mixture.shared->width + hidden_size : 0;
  return std::min(at_experts, kExpertFloats / rows + hidden_size) + shared +
         2ull * mixture.router_op.expert_count + hidden_size;
}

}  // namespace

uint64_t step_scratch_bytes(const model::DecoderSpec& spec, uint64_t rows) {
  uint64_t widest = 0;
  for (const model::LayerSpec& layer : spec.layers) {
    const uint64_t mixer = std::visit([](const auto& kind) { return mixer_floats(kind); }, layer.mixer);
    const uint64_t feed_forward =
        std::visit([&](const auto& kind) { return feed_forward_floats(kind, spec.hidden_size, rows); },
                   layer.feed_forward);
    widest = std::max({widest, mixer, feed_forward});
  }
  // The residual stream, norms before and after, what is added, and rows on their way in and out.
  const uint64_t row_bytes = (widest + 8ull * spec.hidden_size) * sizeof(float);
  // And inputs in the form that the kernels read, gaps between blocks, and an arena that grows by doubling.
  return 5 * rows * row_bytes / 2;
}

}  // namespace shoal::serving
