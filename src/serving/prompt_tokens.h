// A request's prompt as token ids. Pure, but slow for long prompts.
#pragma once

#include <vector>

#include "base/result.h"
#include "serving/model_card.h"
#include "serving/service.h"

namespace shoal::serving {

// Errors: unsupported for a chat with a model without template; invalid_argument for a token id outside the
// vocabulary or an empty prompt; whatever template and tokenizer say.
Result<std::vector<int32_t>> prompt_tokens(const ModelCard& card, const Prompt& prompt);

}  // namespace shoal::serving
