// POST /v1/chat/completions: from OpenAI's JSON to generate requests, and from their events to OpenAI's JSON.
// Pure; api.cpp joins it to the server and the Service. docs/api.md lists every parameter.
#pragma once

#include <memory>
#include <string>

#include "api/generation_run.h"
#include "base/json.h"

namespace shoal::api::openai {

struct ChatCompletionRequest {
  serving::GenerateRequest generate;
  uint32_t choices = 1;
  bool stream = false;
  bool include_usage = false;
};

ApiResult<ChatCompletionRequest> parse_chat_request(const JsonObject& body);

// What is the same in every piece of one answer.
struct AnswerIdentity {
  std::string id;       // "chatcmpl-…"
  std::string model;    // as the client named it
  int64_t created = 0;  // Unix seconds
};
AnswerIdentity new_identity(std::string_view prefix, const std::string& model);

std::unique_ptr<AnswerFormat> make_chat_format(AnswerIdentity identity, const ChatCompletionRequest& request);

}  // namespace shoal::api::openai
