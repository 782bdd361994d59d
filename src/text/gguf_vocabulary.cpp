// tokenizer.ggml.tokens with their kinds and scores, checked, and spelled as tokenizer.json spells them.

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"
#include "text/gguf_tokenizer.h"

namespace shoal::text {

namespace {

// Gemma has tokens for up to 31 spaces.
constexpr size_t kLongSpaceRun = 16;

bool is_spaces(std::string_view token) {
  return !token.empty() && token.find_first_not_of(' ') == std::string_view::npos;
}

std::string with_sentencepiece_spaces(std::string_view token) {
  std::string spelled;
  for (char byte : token) spelled += byte == ' ' ? std::string("▁") : std::string(1, byte);
  return spelled;
}

// Converters write the "▁" of a user-defined token as a space. In tokenizer.json it is "▁", and such a token
// is found in text only where "▁" itself is written; spaces become it by merges, which the header does not
// have. Gemma's merges join any number of spaces, which is the same as finding the spaces in the text.
void respell_user_defined(GgufVocabulary& vocabulary) {
  size_t longest_run = 0;
  const auto each = [&](auto&& visit) {
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      if (vocabulary.kinds[id] == TokenKind::user_defined) visit(vocabulary.tokens[id]);
    }
  };
  each([&](const std::string& token) {
    if (is_spaces(token)) longest_run = std::max(longest_run, token.size());
  });
  const bool joins_spaces = longest_run >= kLongSpaceRun;
  each([&](std::string& token) {
    if (!joins_spaces || !is_spaces(token)) token = with_sentencepiece_spaces(token);
  });
}

}  // namespace

Result<GgufVocabulary> gguf_vocabulary(const formats::GgufMetadata& metadata) {
  const std::vector<std::string>* tokens = metadata.find_strings("tokenizer.ggml.tokens");
  if (tokens == nullptr || tokens->empty()) {
    return fail(ErrorCode::malformed, "the GGUF file has no tokenizer (tokenizer.ggml.tokens)");
  }
  const size_t count = tokens->size();
  if (count > limits::kMaxVocabulary) {
    return fail(ErrorCode::limit_exceeded, fmt::format("tokenizer.ggml.tokens has {} tokens", count));
  }
  GgufVocabulary vocabulary{.tokens = *tokens, .kinds = std::vector(count, TokenKind::normal)};
  if (metadata.find("tokenizer.ggml.token_type") != nullptr) {
    const std::vector<int64_t> kinds = metadata.integers("tokenizer.ggml.token_type");
    if (kinds.size() != count) {
      return fail(ErrorCode::malformed,
                  fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens", kinds.size(), count));
    }
    for (size_t id = 0; id < count; ++id) {
      if (kinds[id] < 0 || kinds[id] > 6) {
        return fail(ErrorCode::malformed,
                    fmt::format("tokenizer.ggml.token_type: token {} is of kind {}", id, kinds[id]));
      }
      vocabulary.kinds[id] = static_cast<TokenKind>(kinds[id]);
    }
  }
  for (size_t id = 0; id < count; ++id) {
    if (vocabulary.tokens[id].empty()) vocabulary.kinds[id] = TokenKind::unused;
  }
  SHOAL_TRY(std::optional<std::string> model, metadata.get_string("tokenizer.ggml.model"));
  if (model == "llama" || model == "gemma4") respell_user_defined(vocabulary);
  return vocabulary;
}

Result<JsonObject> vocabulary_json(const GgufVocabulary& vocabulary) {
  JsonObject ids;
  ids.reserve(vocabulary.tokens.size());
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.kinds[id] == TokenKind::unused) continue;
    const std::string& token = vocabulary.tokens[id];
    if (!ids.emplace(token, id).second) {
      return fail(ErrorCode::malformed, fmt::format("tokenizer.ggml.tokens: '{}' occurs twice", token));
    }
  }
  return ids;
}

Result<JsonArray> merges_json(const formats::GgufMetadata& metadata) {
  const std::vector<std::string>* lines = metadata.find_strings("tokenizer.ggml.merges");
  if (lines == nullptr) return fail(ErrorCode::malformed, "tokenizer.ggml.merges is absent");
  JsonArray merges;
  merges.reserve(lines->size());
  for (const std::string& line : *lines) {
    // "left right"; neither is empty, so a space at the front belongs to the left one.
    const size_t space = line.find(' ', 1);
    if (space == std::string::npos || space + 1 == line.size()) {
      return fail(ErrorCode::malformed, fmt::format("tokenizer.ggml.merges: '{}' is not two tokens", line));
    }
    merges.push_back(JsonArray{Json(line.substr(0, space)), Json(line.substr(space + 1))});
  }
  return merges;
}

Result<const std::vector<double>*> token_scores(const formats::GgufMetadata& metadata,
                                                const GgufVocabulary& vocabulary) {
  const std::vector<double>* scores = metadata.find_numbers("tokenizer.ggml.scores");
  if (scores == nullptr || scores->size() != vocabulary.tokens.size()) {
    return fail(ErrorCode::malformed, "tokenizer.ggml.scores is absent or not one per token");
  }
  if (!std::ranges::all_of(*scores, [](double score) { return std::isfinite(score); })) {
    return fail(ErrorCode::malformed, "tokenizer.ggml.scores has a value that is not a finite number");
  }
  return scores;
}

}  // namespace shoal::text
