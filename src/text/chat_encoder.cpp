#include "text/chat_encoder.h"

#include <fmt/format.h>
#include <optional>

#include "text/special_spelling.h"

namespace shoal::text {

namespace {

struct Sentinel {
  std::string character;  // in UTF-8
  std::string escape;     // as JSON with ensure_ascii writes it
};

// The first of the noncharacters U+FDD0 … U+FDEF that is neither in the input nor in the template.
std::optional<Sentinel> free_sentinel(const ChatTemplate& chat_template, std::string_view input_text) {
  for (unsigned offset = 0; offset < 32; ++offset) {
    const unsigned code_point = 0xFDD0 + offset;
    const std::string character = {static_cast<char>(0xEF),
                                   static_cast<char>(0x80 | (code_point >> 6 & 0x3F)),
                                   static_cast<char>(0x80 | (code_point & 0x3F))};
    Sentinel sentinel{.character = character, .escape = fmt::format("\\u{:04x}", code_point)};
    const bool taken = input_text.find(sentinel.character) != std::string_view::npos ||
                       input_text.find(sentinel.escape) != std::string_view::npos ||
                       chat_template.mentions(sentinel.character) || chat_template.mentions(sentinel.escape);
    if (!taken) return sentinel;
  }
  return std::nullopt;
}

}  // namespace

Result<EncodedChat> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                const ChatInput& input) {
  const std::string input_text = to_text(JsonArray{input.messages, input.tools, input.variables});
  const std::optional<Sentinel> sentinel = free_sentinel(chat_template, input_text);
  if (!sentinel.has_value()) {
    return fail(ErrorCode::invalid_argument,
                "the messages hold all of the Unicode noncharacters U+FDD0 to U+FDEF");
  }
  const SpecialSpelling spelling(tokenizer.added_tokens());
  size_t sentinel_count = 0;
  const ChatInput guarded{
      .messages = spelling.broken(input.messages, sentinel->character, sentinel_count).as_array(),
      .tools = spelling.broken(input.tools, sentinel->character, sentinel_count),
      .add_generation_prompt = input.add_generation_prompt,
      .variables = spelling.broken(input.variables, sentinel->character, sentinel_count).as_object(),
      .unix_seconds = input.unix_seconds};
  SHOAL_TRY(std::string rendered, chat_template.render(guarded));

  Unbroken unbroken{.text = std::move(rendered), .cuts = {}};
  if (sentinel_count != 0) unbroken = without_sentinels(unbroken.text, sentinel->character, sentinel->escape);
  SHOAL_TRY(std::vector<int32_t> tokens, tokenizer.encode_with_cuts(unbroken.text, unbroken.cuts));
  return EncodedChat{.text = std::move(unbroken.text), .tokens = std::move(tokens)};
}

}  // namespace shoal::text
