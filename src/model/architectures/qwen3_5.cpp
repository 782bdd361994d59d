// Qwen3.5, dense and with experts: Qwen3-Next's layers with plainer projections. Published models are
// multimodal; the text model is their `text_config`, its tensors are under "model.language_model.", and what
// sees is ignored, as is what predicts further tokens ("mtp."). Of text, all sections of the rotary positions
// (mrope) have the same position.
#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/architectures/qwen_hybrid.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

constexpr HybridDefaults kDense{.sizes = {.layers = 32,
                                          .hidden_size = 4096,
                                          .query_heads = 16,
                                          .kv_heads = 4,
                                          .head_dim = 256,
                                          .context_tokens = 32768},
                                .dense_width = 12288};
constexpr HybridDefaults kMixture{.sizes = {.layers = 40,
                                            .hidden_size = 2048,
                                            .query_heads = 16,
                                            .kv_heads = 2,
                                            .head_dim = 256,
                                            .context_tokens = 32768}};

void name_projections(DeltaNetSpec& delta, const std::string& prefix, uint64_t hidden_size) {
  name_plain_channels(delta, prefix + "in_proj_qkv.weight", hidden_size);
  delta.gate = TensorRef(prefix + "in_proj_z.weight");
  delta.decay_input = TensorRef(prefix + "in_proj_a.weight");
  delta.rate_input = TensorRef(prefix + "in_proj_b.weight");
}

Result<DecoderSpec> read_text(Fields& fields, bool tied, const Checkpoint& checkpoint, bool mixture) {
  SHOAL_TRY(HybridModel model, read_hybrid(fields, mixture ? kMixture : kDense));
  if (mixture) {
    SHOAL_TRY_VOID(read_hybrid_mixture(fields, {.experts = 256, .used = 8}, model));
    fields.get("norm_topk_prob");  // the family always renormalises
  }
  return hybrid_spec(fields.architecture(), model, tied, find_model_prefix(checkpoint), checkpoint,
                     name_projections);
}

// config.json is the text model's own, or holds it.
Result<DecoderSpec> read_either(Fields& fields, const Checkpoint& checkpoint, bool mixture) {
  SHOAL_TRY(auto inner, fields.get_object("text_config"));
  constexpr std::string_view kTied = "tie_word_embeddings";
  SHOAL_TRY(bool tied, fields.get_flag(kTied, false));
  if (!inner) return read_text(fields, tied, checkpoint, mixture);
  SHOAL_TRY(const bool inner_tied, inner->get_flag(kTied, false));
  if (!fields.contains(kTied)) tied = inner_tied;
  SHOAL_TRY(DecoderSpec spec, read_text(*inner, tied, checkpoint, mixture));
  for (const char* read_with_the_weights : {"quantization", "quantization_config"})
    inner->get(read_with_the_weights);
  SHOAL_TRY_VOID(inner->refuse_unused());
  return spec;
}

Result<DecoderSpec> read_dense(Fields& fields, const Checkpoint& checkpoint) {
  return read_either(fields, checkpoint, false);
}

Result<DecoderSpec> read_mixture(Fields& fields, const Checkpoint& checkpoint) {
  return read_either(fields, checkpoint, true);
}

}  // namespace

const Architecture kQwen35{"qwen3_5", "Qwen3_5ForConditionalGeneration", "", read_dense, nullptr};
const Architecture kQwen35Text{"qwen3_5_text", "Qwen3_5ForCausalLM", "", read_dense, nullptr};
const Architecture kQwen35Moe{"qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", "", read_mixture, nullptr};
const Architecture kQwen35MoeText{"qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", "", read_mixture, nullptr};

}  // namespace shoal::model
