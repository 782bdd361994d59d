#include "serving/prompt_tokens.h"

#include <fmt/format.h>

#include "text/chat_encoder.h"

namespace shoal::serving {
namespace {

Result<std::vector<int32_t>> chat_tokens(const ModelCard& card, const ChatPrompt& chat) {
  if (!card.chat_template)
    return fail(ErrorCode::unsupported,
                fmt::format("model '{}' has no chat template that works: {}", card.stored.name,
                            card.chat_template_error ? card.chat_template_error->message : ""),
                "use text completion instead");
  text::ChatInput input;
  input.messages = chat.messages;
  if (!chat.tools.empty()) input.tools = chat.tools;
  input.variables = chat.template_arguments;
  SHOAL_TRY(text::EncodedChat encoded, text::encode_chat(card.tokenizer, *card.chat_template, input));
  return std::move(encoded.tokens);
}

}  // namespace

Result<std::vector<int32_t>> prompt_tokens(const ModelCard& card, const Prompt& prompt) {
  std::vector<int32_t> tokens;
  if (const auto* chat = std::get_if<ChatPrompt>(&prompt)) {
    SHOAL_TRY(tokens, chat_tokens(card, *chat));
  } else if (const auto* plain = std::get_if<TextPrompt>(&prompt)) {
    SHOAL_TRY(tokens, card.tokenizer.encode(plain->text));
  } else {
    tokens = std::get<std::vector<int32_t>>(prompt);
  }
  if (tokens.empty()) return fail(ErrorCode::invalid_argument, "the prompt has no tokens");
  for (const int32_t token : tokens)
    if (token < 0 || static_cast<uint32_t>(token) >= card.vocabulary_size)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("token id {} is outside the vocabulary of {} of model '{}'", token,
                              card.vocabulary_size, card.stored.name));
  return tokens;
}

}  // namespace shoal::serving
