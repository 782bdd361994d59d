// Log probabilities in OpenAI's forms, and the pieces that answers of both endpoints share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "serving/service.h"

namespace shoal::api::openai {

// {"content": [{"token", "logprob", "bytes", "top_logprobs": […]}], "refusal": null}
JsonObject chat_logprobs(const std::vector<serving::TokenText>& tokens);
// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}; `offset` is where the first token starts in
// the text.
JsonObject text_logprobs(const std::vector<serving::TokenText>& tokens, size_t offset);

std::string_view finish_reason_name(serving::FinishReason reason);
JsonObject usage_body(const serving::Usage& usage);
// "data: {…}\n\n"
std::string server_sent_event(const JsonObject& data);

// `bytes` as text, with U+FFFD for what is not UTF-8 (a token may hold a part of a character).
std::string valid_utf8(std::string_view bytes);

}  // namespace shoal::api::openai
