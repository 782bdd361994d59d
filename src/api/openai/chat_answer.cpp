#include <fmt/format.h>

#include "api/openai/chat.h"
#include "api/openai/errors.h"
#include "api/openai/logprobs.h"
#include "base/clock.h"
#include "base/system.h"

namespace shoal::api::openai {
namespace {

class ChatFormat final : public AnswerFormat {
 public:
  ChatFormat(AnswerIdentity identity, bool logprobs, bool include_usage)
      : identity_(std::move(identity)), logprobs_(logprobs), include_usage_(include_usage) {}

  Response error(const ApiError& error) override { return error_response(naming_the_model(error)); }
  Response whole(const std::vector<Choice>& choices, const serving::Usage& total) override;
  std::string stream_start(size_t choice_count) override;
  std::string stream_text(size_t choice, std::string_view text,
                          const std::vector<serving::TokenText>& tokens) override;
  std::string stream_choice_end(size_t choice, const Choice& whole) override;
  std::string stream_end(const serving::Usage& total) override;
  std::string stream_error(const ApiError& error) override {
    return server_sent_event(error_body(naming_the_model(error)));
  }

 private:
  JsonObject envelope(std::string_view object) const;
  std::string chunk(size_t choice, JsonObject delta, Json logprobs, Json finish_reason) const;

  AnswerIdentity identity_;
  bool logprobs_;
  bool include_usage_;
};

JsonObject ChatFormat::envelope(std::string_view object) const {
  JsonObject body;
  body["id"] = identity_.id;
  body["object"] = object;
  body["created"] = identity_.created;
  body["model"] = identity_.model;
  body["system_fingerprint"] = "shoal-" SHOAL_VERSION;
  return body;
}

Response ChatFormat::whole(const std::vector<Choice>& choices, const serving::Usage& total) {
  JsonArray list;
  for (size_t i = 0; i < choices.size(); ++i) {
    JsonObject message;
    message["role"] = "assistant";
    message["content"] = choices[i].text;
    message["refusal"] = nullptr;
    JsonObject choice;
    choice["index"] = i;
    choice["message"] = std::move(message);
    choice["logprobs"] = logprobs_ ? Json(chat_logprobs(choices[i].tokens)) : Json(nullptr);
    choice["finish_reason"] = finish_reason_name(*choices[i].finish_reason);
    list.push_back(std::move(choice));
  }
  JsonObject body = envelope("chat.completion");
  body["choices"] = std::move(list);
  body["usage"] = usage_body(total);
  return {.status = 200, .content_type = "application/json", .body = to_text(body), .headers = {}};
}

std::string ChatFormat::chunk(size_t choice, JsonObject delta, Json logprobs, Json finish_reason) const {
  JsonObject entry;
  entry["index"] = choice;
  entry["delta"] = std::move(delta);
  entry["logprobs"] = std::move(logprobs);
  entry["finish_reason"] = std::move(finish_reason);
  JsonObject body = envelope("chat.completion.chunk");
  JsonArray list;
  list.push_back(std::move(entry));
  body["choices"] = std::move(list);
  if (include_usage_) body["usage"] = nullptr;
  return server_sent_event(body);
}

std::string ChatFormat::stream_start(size_t choice_count) {
  std::string events;
  for (size_t i = 0; i < choice_count; ++i) {
    JsonObject delta;
    delta["role"] = "assistant";
    delta["content"] = "";
    delta["refusal"] = nullptr;
    events += chunk(i, std::move(delta), nullptr, nullptr);
  }
  return events;
}

std::string ChatFormat::stream_text(size_t choice, std::string_view text,
                                    const std::vector<serving::TokenText>& tokens) {
  if (text.empty() && (!logprobs_ || tokens.empty())) return {};
  JsonObject delta;
  delta["content"] = text;
  return chunk(choice, std::move(delta), logprobs_ ? Json(chat_logprobs(tokens)) : Json(nullptr), nullptr);
}

std::string ChatFormat::stream_choice_end(size_t choice, const Choice& whole) {
  return chunk(choice, {}, nullptr, Json(finish_reason_name(*whole.finish_reason)));
}

std::string ChatFormat::stream_end(const serving::Usage& total) {
  std::string events;
  if (include_usage_) {
    JsonObject body = envelope("chat.completion.chunk");
    body["choices"] = JsonArray();
    body["usage"] = usage_body(total);
    events += server_sent_event(body);
  }
  return events += "data: [DONE]\n\n";
}

}  // namespace

AnswerIdentity new_identity(std::string_view prefix, const std::string& model) {
  return {fmt::format("{}{:016x}{:016x}", prefix, random_u64(), random_u64()), model, unix_seconds()};
}

std::unique_ptr<AnswerFormat> make_chat_format(AnswerIdentity identity,
                                               const ChatCompletionRequest& request) {
  return std::make_unique<ChatFormat>(std::move(identity), request.generate.logprobs, request.include_usage);
}

}  // namespace shoal::api::openai
