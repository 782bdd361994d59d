// What both tokenizer fuzzers do with a tokenizer that opened. For fuzzers only.
#pragma once

#include <vector>

#include "base/assert.h"
#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace shoal::text {

inline void expect_whole_characters(const std::string& text) {
  // Boost.JSON validates UTF-8 when it parses.
  SHOAL_ASSERT(parse_json(to_text(Json(text)), "text").has_value());
}

inline void exercise(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<size_t> cuts = {1, text.size() / 2};
  for (const auto& ids :
       {tokenizer.encode(text), tokenizer.encode(text, {.special_text = SpecialText::as_text}),
        tokenizer.encode_with_cuts(text, cuts)}) {
    if (!ids) continue;
    auto whole = tokenizer.decode(*ids, SpecialTokens::keep);
    if (whole) expect_whole_characters(*whole);
    auto stream = IncrementalDetokenizer::open(tokenizer, SpecialTokens::skip);
    SHOAL_ASSERT(stream.has_value());
    for (int32_t id : *ids) {
      tokenizer.token(id);
      auto piece = stream->push(id);
      if (piece) expect_whole_characters(*piece);
    }
    auto rest = stream->flush();
    if (rest) expect_whole_characters(*rest);
  }
}

}  // namespace shoal::text
