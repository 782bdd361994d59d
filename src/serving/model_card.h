// What a node needs to know of a model it holds in order to take requests for it and to place it: read once,
// in a thread that may wait, then shared. The weights stay on disk.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "hub/model_store.h"
#include "model/decoder_spec.h"
#include "model/shard_plan.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace shoal::serving {

struct ModelCard {
  hub::StoredModel stored;
  uint32_t layer_count = 0;
  uint32_t hidden_size = 0;
  uint32_t vocabulary_size = 0;    // rows of the embedding: token ids must be below
  uint32_t context_tokens = 0;     // the longest the model was made for
  uint64_t scratch_bytes = 0;      // of the largest step's activations, in any stage
  uint32_t long_after_tokens = 0;  // longer prompts are computed with other rotary frequencies; 0: none are
  bool recurrent = false;          // some layers keep a state per sequence
  bool tied = false;               // the head is the embedding
  model::ModelCost cost;
  std::vector<model::LayerCuts> cuts;  // [layer_count]
  std::vector<int32_t> stop_ids;       // end-of-sequence tokens
  text::Tokenizer tokenizer;
  std::optional<text::ChatTemplate> chat_template;
  std::optional<Error> chat_template_error;  // why there is none
  std::string weights = {};                  // the class that most bytes belong to, see weight_class()
};

Result<std::shared_ptr<const ModelCard>> read_model_card(const hub::StoredModel& stored);

}  // namespace shoal::serving
