// POST /v1/completions, the older endpoint: raw text or tokens in, text out. Pure, like chat.h.
#pragma once

#include <memory>
#include <vector>

#include "api/generation_run.h"
#include "api/openai/chat.h"
#include "base/json.h"

namespace shoal::api::openai {

struct TextCompletionRequest {
  std::vector<serving::GenerateRequest> generate;  // one per prompt
  uint32_t choices = 1;                            // of each prompt
  bool stream = false;
  bool include_usage = false;
  bool logprobs = false;
};

ApiResult<TextCompletionRequest> parse_text_request(const JsonObject& body);

std::unique_ptr<AnswerFormat> make_text_format(AnswerIdentity identity, const TextCompletionRequest& request);

}  // namespace shoal::api::openai
