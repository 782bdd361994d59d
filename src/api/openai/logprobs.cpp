#include "api/openai/logprobs.h"

#include <algorithm>

namespace shoal::api::openai {
namespace {

constexpr float kLeastLogprob = -9999;  // what OpenAI sends for "next to impossible"; JSON has no infinity

size_t sequence_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) return 2;
  if (lead >= 0xE0 && lead < 0xF0) return 3;
  if (lead >= 0xF0 && lead < 0xF5) return 4;
  return 0;
}

bool is_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 1; i < text.size(); ++i) {
    if ((byte(i) & 0xC0) != 0x80) return false;
  }
  if (byte(0) == 0xE0) return byte(1) >= 0xA0;  // overlong
  if (byte(0) == 0xED) return byte(1) < 0xA0;   // surrogates
  if (byte(0) == 0xF0) return byte(1) >= 0x90;
  if (byte(0) == 0xF4) return byte(1) < 0x90;
  return true;
}

JsonObject token_body(std::string_view bytes, float logprob) {
  JsonArray values;
  for (unsigned char byte : bytes) values.emplace_back(static_cast<int64_t>(byte));
  JsonObject body;
  body["token"] = valid_utf8(bytes);
  body["logprob"] = std::max(logprob, kLeastLogprob);
  body["bytes"] = std::move(values);
  return body;
}

std::string_view alternative_text(const serving::TokenText& token, size_t index) {
  return index < token.alternative_texts.size() ? std::string_view(token.alternative_texts[index])
                                                : std::string_view();
}

}  // namespace

std::string valid_utf8(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = sequence_length(static_cast<unsigned char>(bytes[i]));
    if (length != 0 && i + length <= bytes.size() && is_character(bytes.substr(i, length))) {
      out += bytes.substr(i, length);
      i += length;
    } else {
      out += "\xEF\xBF\xBD";
      ++i;
    }
  }
  return out;
}

JsonObject chat_logprobs(const std::vector<serving::TokenText>& tokens) {
  JsonArray content;
  for (const auto& token : tokens) {
    JsonObject body = token_body(token.text, token.sampled.logprob);
    JsonArray alternatives;
    for (size_t i = 0; i < token.sampled.alternatives.size(); ++i) {
      alternatives.push_back(token_body(alternative_text(token, i), token.sampled.alternatives[i].logprob));
    }
    body["top_logprobs"] = std::move(alternatives);
    content.push_back(std::move(body));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

JsonObject text_logprobs(const std::vector<serving::TokenText>& tokens, size_t offset) {
  JsonArray texts, logprobs, tops, offsets;
  for (const auto& token : tokens) {
    JsonObject top;
    for (size_t i = 0; i < token.sampled.alternatives.size(); ++i) {
      top[valid_utf8(alternative_text(token, i))] =
          std::max(token.sampled.alternatives[i].logprob, kLeastLogprob);
    }
    texts.emplace_back(valid_utf8(token.text));
    logprobs.emplace_back(std::max(token.sampled.logprob, kLeastLogprob));
    tops.push_back(std::move(top));
    offsets.emplace_back(offset);
    offset += token.text.size();
  }
  JsonObject body;
  body["tokens"] = std::move(texts);
  body["token_logprobs"] = std::move(logprobs);
  body["top_logprobs"] = std::move(tops);
  body["text_offset"] = std::move(offsets);
  return body;
}

std::string_view finish_reason_name(serving::FinishReason reason) {
  return reason == serving::FinishReason::length ? "length" : "stop";
}

JsonObject usage_body(const serving::Usage& usage) {
  JsonObject body;
  body["prompt_tokens"] = usage.prompt_tokens;
  body["completion_tokens"] = usage.completion_tokens;
  body["total_tokens"] = uint64_t{usage.prompt_tokens} + usage.completion_tokens;
  body["prompt_tokens_details"] = JsonObject{{"cached_tokens", usage.cached_tokens}};
  return body;
}

std::string server_sent_event(const JsonObject& data) {
  return "data: " + to_text(data) + "\n\n";
}

}  // namespace shoal::api::openai
