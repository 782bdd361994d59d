// Messages to prompt tokens, such that only the template writes control tokens: "<|im_end|>" in a message, a
// tool's description or a template variable stays text, however the template trims, splits or joins it.
//
// How: before rendering, a sentinel (a Unicode noncharacter that occurs nowhere in the input) is put behind
// the first character of every control token that is spelled out in the input, and of every beginning of one
// at the end of a string (so that two strings cannot join to one). After rendering the sentinels are taken
// out again, and where they were are cuts: a control token that has a cut behind one of its characters is
// text (Tokenizer::encode_with_cuts).
//
// Inputs without control tokens' text render byte for byte as ChatTemplate::render does and give the tokens
// of that text. Otherwise the text is the same too, but for templates that count characters or compare whole
// contents.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace shoal::text {

struct EncodedChat {
  std::string text;  // as rendered
  std::vector<int32_t> tokens;
};

Result<EncodedChat> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                const ChatInput& input);

}  // namespace shoal::text
