#include "serving/model_card.h"

#include <algorithm>
#include <map>

#include "base/limits.h"
#include "formats/checkpoint.h"
#include "serving/probe.h"
#include "serving/step_scratch.h"

namespace shoal::serving {
namespace {

constexpr uint64_t kStepRows = 512 + limits::kMaxActiveSequences;  // a full step of the scheduler

uint32_t long_after_tokens(const model::DecoderSpec& spec) {
  uint32_t tokens = 0;
  for (const model::LayerSpec& layer : spec.layers) {
    const model::RopeSpec* rope = nullptr;
    if (const auto* attention = std::get_if<model::AttentionSpec>(&layer.mixer)) rope = &attention->rope;
    if (const auto* latent = std::get_if<model::LatentAttentionSpec>(&layer.mixer)) rope = &latent->rope;
    if (rope != nullptr && !rope->long_inverse_frequencies.empty()) tokens = rope->long_after_tokens;
  }
  return tokens;
}

std::string main_weights(const formats::Checkpoint& checkpoint) {
  std::map<std::string_view, uint64_t> bytes;
  for (const formats::TensorInfo& tensor : checkpoint.tensors())
    bytes[weight_class(tensor.type)] += tensor.bytes;
  const auto most = std::ranges::max_element(bytes, {}, [](const auto& one) { return one.second; });
  return most == bytes.end() ? std::string() : std::string(most->first);
}

}  // namespace

Result<std::shared_ptr<const ModelCard>> read_model_card(const hub::StoredModel& stored) {
  SHOAL_TRY(const formats::Checkpoint checkpoint, formats::Checkpoint::open(stored.path));
  SHOAL_TRY(const model::DecoderSpec spec, model::read_decoder_spec(checkpoint));
  SHOAL_TRY(model::ModelCost cost, model::model_cost(spec, checkpoint));
  SHOAL_TRY(std::vector<model::LayerCuts> cuts, model::layer_cuts(spec, checkpoint));
  SHOAL_TRY(text::Tokenizer tokenizer, text::Tokenizer::open(checkpoint));
  auto card = std::make_shared<ModelCard>(ModelCard{.stored = stored,
                                                    .layer_count = spec.layer_count(),
                                                    .hidden_size = spec.hidden_size,
                                                    .vocabulary_size = spec.vocabulary_size,
                                                    .context_tokens = spec.context_tokens,
                                                    .scratch_bytes = step_scratch_bytes(spec, kStepRows),
                                                    .long_after_tokens = long_after_tokens(spec),
                                                    .recurrent = model::has_recurrent_layers(spec),
                                                    .tied = spec.tied(),
                                                    .cost = std::move(cost),
                                                    .cuts = std::move(cuts),
                                                    .stop_ids = model::end_of_sequence_ids(checkpoint),
                                                    .tokenizer = std::move(tokenizer),
                                                    .chat_template = std::nullopt,
                                                    .chat_template_error = std::nullopt});
  card->weights = main_weights(checkpoint);
  // A base model has no template and still completes text.
  if (Result<text::ChatTemplate> chat_template = text::ChatTemplate::from_checkpoint(checkpoint))
    card->chat_template = *std::move(chat_template);
  else
    card->chat_template_error = std::move(chat_template).error();
  return card;
}

}  // namespace shoal::serving
