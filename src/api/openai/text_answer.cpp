#include "api/openai/errors.h"
#include "api/openai/logprobs.h"
#include "api/openai/text.h"

namespace shoal::api::openai {
namespace {

class TextFormat final : public AnswerFormat {
 public:
  TextFormat(AnswerIdentity identity, bool logprobs, bool include_usage)
      : identity_(std::move(identity)), logprobs_(logprobs), include_usage_(include_usage) {}

  Response error(const ApiError& error) override { return error_response(naming_the_model(error)); }
  Response whole(const std::vector<Choice>& choices, const serving::Usage& total) override;
  std::string stream_start(size_t choice_count) override {
    offsets_.assign(choice_count, 0);
    return {};
  }
  std::string stream_text(size_t choice, std::string_view text,
                          const std::vector<serving::TokenText>& tokens) override;
  std::string stream_choice_end(size_t choice, const Choice& whole) override {
    return event(entry(choice, {}, nullptr, Json(finish_reason_name(*whole.finish_reason))));
  }
  std::string stream_end(const serving::Usage& total) override;
  std::string stream_error(const ApiError& error) override {
    return server_sent_event(error_body(naming_the_model(error)));
  }

 private:
  JsonObject envelope() const;
  JsonObject entry(size_t choice, std::string_view text, Json logprobs, Json finish_reason) const;
  std::string event(JsonObject entry) const;

  AnswerIdentity identity_;
  bool logprobs_;
  bool include_usage_;
  std::vector<size_t> offsets_;  // bytes streamed of each choice
};

JsonObject TextFormat::envelope() const {
  JsonObject body;
  body["id"] = identity_.id;
  body["object"] = "text_completion";
  body["created"] = identity_.created;
  body["model"] = identity_.model;
  body["system_fingerprint"] = "shoal-" SHOAL_VERSION;
  return body;
}

JsonObject TextFormat::entry(size_t choice, std::string_view text, Json logprobs, Json finish_reason) const {
  JsonObject entry;
  entry["index"] = choice;
  entry["text"] = text;
  entry["logprobs"] = std::move(logprobs);
  entry["finish_reason"] = std::move(finish_reason);
  return entry;
}

std::string TextFormat::event(JsonObject entry) const {
  JsonObject body = envelope();
  JsonArray list;
  list.push_back(std::move(entry));
  body["choices"] = std::move(list);
  if (include_usage_) body["usage"] = nullptr;
  return server_sent_event(body);
}

Response TextFormat::whole(const std::vector<Choice>& choices, const serving::Usage& total) {
  JsonArray list;
  for (size_t i = 0; i < choices.size(); ++i) {
    list.push_back(entry(i, choices[i].text,
                         logprobs_ ? Json(text_logprobs(choices[i].tokens, 0)) : Json(nullptr),
                         Json(finish_reason_name(*choices[i].finish_reason))));
  }
  JsonObject body = envelope();
  body["choices"] = std::move(list);
  body["usage"] = usage_body(total);
  return {.status = 200, .content_type = "application/json", .body = to_text(body), .headers = {}};
}

std::string TextFormat::stream_text(size_t choice, std::string_view text,
                                    const std::vector<serving::TokenText>& tokens) {
  if (text.empty() && (!logprobs_ || tokens.empty())) return {};
  Json logprobs = logprobs_ ? Json(text_logprobs(tokens, offsets_[choice])) : Json(nullptr);
  offsets_[choice] += text.size();
  return event(entry(choice, text, std::move(logprobs), nullptr));
}

std::string TextFormat::stream_end(const serving::Usage& total) {
  std::string events;
  if (include_usage_) {
    JsonObject body = envelope();
    body["choices"] = JsonArray();
    body["usage"] = usage_body(total);
    events += server_sent_event(body);
  }
  return events += "data: [DONE]\n\n";
}

}  // namespace

std::unique_ptr<AnswerFormat> make_text_format(AnswerIdentity identity,
                                               const TextCompletionRequest& request) {
  return std::make_unique<TextFormat>(std::move(identity), request.logprobs, request.include_usage);
}

}  // namespace shoal::api::openai
