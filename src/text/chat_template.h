// A model's chat template: messages to the prompt's text, as Hugging Face transformers renders it (template.h
// of the bridge says which Jinja). Templates come from strangers: they run under the fuel, memory, output and
// time limits of base/limits.h and this header, and going over one is `limit_exceeded`. A ChatTemplate is a
// shared handle that threads may use at once.
//
// Rendering is for showing; to get tokens use encode_chat (chat_encoder.h), which keeps what users wrote from
// becoming control tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::text {

// Held at once by one rendering, and how long it may take: bounds against hostile templates, far from any
// honest one.
inline constexpr uint64_t kTemplateMemoryBytes = 128ULL << 20;
inline constexpr uint64_t kTemplateTimeMs = 4'000;

struct ChatInput {
  JsonArray messages = {};
  Json tools = nullptr;  // an array of tool definitions, or null
  bool add_generation_prompt = true;
  JsonObject variables = {};  // further template variables, such as enable_thinking; these win over bos_token
                              // and its like
  int64_t unix_seconds = shoal::unix_seconds();  // what strftime_now shows
};

class ChatTemplate {
 public:
  struct Source {
    std::string text;
    // For chats with tools, where the model has a template of its own for them.
    std::optional<std::string> tool_text = std::nullopt;
    std::optional<std::string> bos_token = std::nullopt;
    std::optional<std::string> eos_token = std::nullopt;
    std::optional<std::string> unk_token = std::nullopt;
    std::optional<std::string> pad_token = std::nullopt;
  };

  static Result<ChatTemplate> open(Source source);
  // chat_template.jinja beside the weights, else "chat_template" of tokenizer_config.json (a string, or a
  // list of {name, template}) or of chat_template.json; in a GGUF header tokenizer.chat_template, and
  // tokenizer.chat_template.tool_use for chats with tools. not_found when the model has none.
  static Result<ChatTemplate> from_checkpoint(const formats::Checkpoint& checkpoint);

  // Members of messages whose value is null are dropped first. invalid_argument when the template refuses the
  // messages (its own words) or cannot handle them.
  Result<std::string> render(const ChatInput& input) const;

  // Whether chats with tools have a template of their own.
  bool has_tool_template() const;

  // Whether `text` occurs in one of the template's sources.
  bool mentions(std::string_view text) const;

 private:
  struct State;
  explicit ChatTemplate(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace shoal::text
