// SentencePiece as GGUF stores it: tokens with scores, no merges. SentencePiece BPE merges the neighbours
// whose union has the highest score; the equivalent list of merges is every way to cut a token into two
// tokens, by falling score. Unigram needs no more than the scores.

#include <algorithm>
#include <fmt/format.h>
#include <string_view>
#include <unordered_map>

#include "base/limits.h"
#include "text/gguf_tokenizer.h"

namespace shoal::text {

namespace {

// A token of n characters has n - 1 cuts, and each costs two look-ups of up to n bytes.
constexpr size_t kMaxTokenBytes = 1024;

struct Merge {
  double score;
  size_t left;
  size_t right;
};

bool is_continuation_byte(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Every merge, the best first; equal scores in order of the ids.
Result<std::vector<Merge>> merges_by_score(const GgufVocabulary& vocabulary,
                                           const std::vector<double>& scores) {
  const std::vector<std::string>& tokens = vocabulary.tokens;
  const auto can_merge = [&](size_t id) {
    return vocabulary.kinds[id] == TokenKind::normal || vocabulary.kinds[id] == TokenKind::undefined;
  };
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (can_merge(id)) ids.emplace(tokens[id], id);
  }
  std::vector<Merge> merges;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    if (!can_merge(id)) continue;
    if (token.size() > kMaxTokenBytes) {
      return fail(ErrorCode::limit_exceeded,
                  fmt::format("tokenizer.ggml.tokens: token {} has {} bytes, over {}", id, token.size(),
                              kMaxTokenBytes));
    }
    for (size_t cut = 1; cut < token.size(); ++cut) {
      if (is_continuation_byte(token[cut])) continue;
      const auto left = ids.find(token.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(token.substr(cut));
      if (right != ids.end())
        merges.push_back({.score = scores[id], .left = left->second, .right = right->second});
    }
  }
  std::ranges::sort(merges, [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    return std::pair(a.left, a.right) < std::pair(b.left, b.right);
  });
  return merges;
}

Json normalizer_json(bool space_prefix) {
  JsonArray steps;
  if (space_prefix) steps.push_back({{"type", "Prepend"}, {"prepend", "▁"}});
  steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}});
  return {{"type", "Sequence"}, {"normalizers", steps}};
}

Json decoder_json(bool space_prefix) {
  JsonArray steps = {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                     {{"type", "ByteFallback"}},
                     {{"type", "Fuse"}}};
  if (space_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

Json unknown_token(const GgufVocabulary& vocabulary) {
  const auto kind = std::ranges::find(vocabulary.kinds, TokenKind::unknown);
  if (kind == vocabulary.kinds.end()) return nullptr;
  return Json(vocabulary.tokens[static_cast<size_t>(kind - vocabulary.kinds.begin())]);
}

Json fallback_bpe(Json unknown, JsonObject ids, JsonArray merges) {
  return {{"type", "BPE"},         {"unk_token", std::move(unknown)}, {"fuse_unk", true},
          {"byte_fallback", true}, {"vocab", std::move(ids)},         {"merges", std::move(merges)}};
}

std::string base64(const std::vector<int64_t>& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve(bytes.size() / 3 * 4 + 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t taken = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t index = 0; index < 3; ++index) {
      const uint32_t byte = index < taken ? static_cast<uint32_t>(bytes[at + index]) & 0xFF : 0;
      group = group << 8 | byte;
    }
    for (size_t index = 0; index < 4; ++index) {
      text += index <= taken ? kDigits[group >> (18 - 6 * index) & 0x3F] : '=';
    }
  }
  return text;
}

// [["token", score], …]; unused ids keep their place under a name that no text has.
JsonArray unigram_vocabulary(const GgufVocabulary& vocabulary, const std::vector<double>& scores) {
  JsonArray entries;
  entries.reserve(scores.size());
  for (size_t id = 0; id < scores.size(); ++id) {
    const bool unused = vocabulary.kinds[id] == TokenKind::unused;
    std::string token = unused ? fmt::format("\uFDD0unused {}", id) : vocabulary.tokens[id];
    entries.push_back(JsonArray{Json(std::move(token)), Json(unused ? 0.0 : scores[id])});
  }
  return entries;
}

Json unigram_normalizer(const std::vector<int64_t>& charsmap, bool remove_extra_spaces) {
  JsonArray steps;
  if (!charsmap.empty()) {
    steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(charsmap)}});
  }
  if (remove_extra_spaces) {
    steps.push_back({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}});
    steps.push_back({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}});
  }
  return {{"type", "Sequence"}, {"normalizers", steps}};
}

}  // namespace

Result<JsonObject> sentencepiece_json(const formats::GgufMetadata& metadata,
                                      const GgufVocabulary& vocabulary) {
  SHOAL_TRY(const std::vector<double>* scores, token_scores(metadata, vocabulary));
  SHOAL_TRY(std::optional<bool> add_space_prefix, metadata.get_bool("tokenizer.ggml.add_space_prefix"));
  const bool space_prefix = add_space_prefix.value_or(true);
  SHOAL_TRY(JsonObject ids, vocabulary_json(vocabulary));
  SHOAL_TRY(std::vector<Merge> merges, merges_by_score(vocabulary, *scores));
  JsonArray merge_pairs;
  merge_pairs.reserve(merges.size());
  for (const Merge& merge : merges) {
    merge_pairs.push_back(
        JsonArray{Json(vocabulary.tokens[merge.left]), Json(vocabulary.tokens[merge.right])});
  }
  JsonObject members;
  members["normalizer"] = normalizer_json(space_prefix);
  members["pre_tokenizer"] = nullptr;
  members["decoder"] = decoder_json(space_prefix);
  members["model"] = fallback_bpe(unknown_token(vocabulary), std::move(ids), std::move(merge_pairs));
  return members;
}

Result<JsonObject> raw_bpe_json(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary) {
  SHOAL_TRY(JsonObject ids, vocabulary_json(vocabulary));
  SHOAL_TRY(JsonArray merges, merges_json(metadata));
  JsonObject members;
  members["normalizer"] = normalizer_json(false);
  members["pre_tokenizer"] = nullptr;
  members["decoder"] = decoder_json(false);
  members["model"] = fallback_bpe(unknown_token(vocabulary), std::move(ids), std::move(merges));
  return members;
}

Result<JsonObject> unigram_json(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary) {
  SHOAL_TRY(const std::vector<double>* scores, token_scores(metadata, vocabulary));
  SHOAL_TRY_VOID(vocabulary_json(vocabulary));  // for its check
  SHOAL_TRY(std::optional<bool> add_space_prefix, metadata.get_bool("tokenizer.ggml.add_space_prefix"));
  SHOAL_TRY(std::optional<bool> remove_spaces, metadata.get_bool("tokenizer.ggml.remove_extra_whitespaces"));
  const auto largest = static_cast<int64_t>(vocabulary.tokens.size()) - 1;
  SHOAL_TRY(std::optional<int64_t> unknown,
            metadata.get_integer("tokenizer.ggml.unknown_token_id", 0, largest));
  const std::string_view prefix = add_space_prefix.value_or(true) ? "always" : "never";
  const Json metaspace = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", prefix}, {"split", true}};
  JsonObject members;
  members["normalizer"] = unigram_normalizer(metadata.integers("tokenizer.ggml.precompiled_charsmap"),
                                             remove_spaces.value_or(false));
  members["pre_tokenizer"] = metaspace;
  members["decoder"] = metaspace;
  members["model"] = {{"type", "Unigram"},
                      {"unk_id", unknown.value_or(std::min<int64_t>(2, largest))},
                      {"byte_fallback", false},
                      {"vocab", unigram_vocabulary(vocabulary, *scores)}};
  return members;
}

}  // namespace shoal::text
