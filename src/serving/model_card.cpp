#include "serving/model_card.h"

#include <algorithm>

#include "formats/checkpoint.h"

namespace shoal::serving {
namespace {

uint32_t widest_layer(const model::DecoderSpec& spec) {
  uint32_t widest = spec.hidden_size;
  for (const model::LayerSpec& layer : spec.layers) {
    if (const auto* attention = std::get_if<model::AttentionSpec>(&layer.mixer))
      widest = std::max(widest, (attention->query_heads + 2 * attention->kv_heads) * attention->head_dim);
    if (const auto* dense = std::get_if<model::DenseSpec>(&layer.feed_forward))
      widest = std::max(widest, dense->width);
  }
  return widest;
}

}  // namespace

Result<std::shared_ptr<const ModelCard>> read_model_card(const hub::StoredModel& stored) {
  SHOAL_TRY(const formats::Checkpoint checkpoint, formats::Checkpoint::open(stored.path));
  SHOAL_TRY(const model::DecoderSpec spec, model::read_decoder_spec(checkpoint));
  SHOAL_TRY(model::ModelCost cost, model::model_cost(spec, checkpoint));
  SHOAL_TRY(text::Tokenizer tokenizer, text::Tokenizer::open(checkpoint));
  auto card = std::make_shared<ModelCard>(ModelCard{.stored = stored,
                                                    .layer_count = spec.layer_count(),
                                                    .hidden_size = spec.hidden_size,
                                                    .vocabulary_size = spec.vocabulary_size,
                                                    .context_tokens = spec.context_tokens,
                                                    .widest_layer = widest_layer(spec),
                                                    .cost = std::move(cost),
                                                    .stop_ids = model::end_of_sequence_ids(checkpoint),
                                                    .tokenizer = std::move(tokenizer),
                                                    .chat_template = std::nullopt,
                                                    .chat_template_error = std::nullopt});
  // A base model has no template and still completes text.
  if (Result<text::ChatTemplate> chat_template = text::ChatTemplate::from_checkpoint(checkpoint))
    card->chat_template = *std::move(chat_template);
  else
    card->chat_template_error = std::move(chat_template).error();
  return card;
}

}  // namespace shoal::serving
