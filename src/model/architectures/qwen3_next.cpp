// Qwen3-Next (https://qwenlm.github.io/blog/qwen3_next/): gated delta nets
// (https://arxiv.org/abs/2412.06464), a gated attention layer after every three, and in each layer a mixture
// with one shared expert behind a gate. Norms multiply by 1 + w, but for the gated norm inside the delta net.
//
// A delta net's projections are two matrices, grouped by key head.
#include <algorithm>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/architectures/qwen_hybrid.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

void name_projections(DeltaNetSpec& delta, const std::string& prefix, uint64_t hidden_size) {
  name_grouped_channels(delta, prefix + "in_proj_qkvz.weight", hidden_size);
  name_grouped_rates(delta, prefix + "in_proj_ba.weight", hidden_size);
}

Result<DecoderSpec> read_config(Fields& fields, const Checkpoint& checkpoint) {
  SHOAL_TRY(HybridModel model, read_hybrid(fields, {.sizes = {.layers = 48,
                                                              .hidden_size = 2048,
                                                              .query_heads = 16,
                                                              .kv_heads = 2,
                                                              .head_dim = 256,
                                                              .context_tokens = 32768},
                                                    .dense_width = 5632}));
  SHOAL_TRY_VOID(read_hybrid_mixture(fields, {.experts = 512, .used = 10}, model));
  SHOAL_TRY(model.router.normalise, fields.get_flag("norm_topk_prob", true));
  SHOAL_TRY(const auto step, fields.get_count("decoder_sparse_step", limits::kMaxWidth));
  SHOAL_TRY(const std::vector<uint32_t> dense, fields.get_wholes("mlp_only_layers", limits::kMaxWidth));
  for (uint32_t i = 0; i < model.sizes.layers; ++i) {
    if ((i + 1) % step.value_or(1) != 0 || std::ranges::find(dense, i) != dense.end())
      model.mixture[i] = false;
  }
  SHOAL_TRY_VOID(fields.expect_flag("use_sliding_window", false));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  return hybrid_spec(fields.architecture(), model, tied, find_model_prefix(checkpoint), checkpoint,
                     name_projections);
}

}  // namespace

const Architecture kQwen3Next{"qwen3_next", "Qwen3NextForCausalLM", "", read_config, nullptr};

}  // namespace shoal::model
