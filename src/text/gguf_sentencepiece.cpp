// SentencePiece BPE as GGUF stores it: tokens with scores, no merges. SentencePiece merges the neighbours
// whose union has the highest score; the equivalent list of merges is every way to cut a token into two
// tokens, by falling score.

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
  const std::vector<std::string>& tokens = *vocabulary.tokens;
  const auto can_merge = [&](size_t id) {
    return vocabulary.kinds[id] == TokenKind::normal || vocabulary.kinds[id] == TokenKind::user_defined;
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

}  // namespace

Result<JsonObject> sentencepiece_json(const formats::GgufMetadata& metadata,
                                      const GgufVocabulary& vocabulary) {
  const std::vector<double>* scores = metadata.find_numbers("tokenizer.ggml.scores");
  if (scores == nullptr || scores->size() != vocabulary.tokens->size()) {
    return fail(ErrorCode::malformed, "tokenizer.ggml.scores is absent or not one per token");
  }
  if (std::ranges::any_of(*scores, [](double score) { return score != score; })) {
    return fail(ErrorCode::malformed, "tokenizer.ggml.scores has a value that is not a number");
  }
  SHOAL_TRY(std::optional<bool> add_space_prefix, metadata.get_bool("tokenizer.ggml.add_space_prefix"));
  const bool space_prefix = add_space_prefix.value_or(true);
  SHOAL_TRY(JsonObject ids, vocabulary_json(vocabulary));
  SHOAL_TRY(std::vector<Merge> merges, merges_by_score(vocabulary, *scores));
  JsonArray merge_pairs;
  merge_pairs.reserve(merges.size());
  for (const Merge& merge : merges) {
    merge_pairs.push_back(
        JsonArray{Json((*vocabulary.tokens)[merge.left]), Json((*vocabulary.tokens)[merge.right])});
  }
  Json unknown = nullptr;
  for (size_t id = 0; id < vocabulary.kinds.size(); ++id) {
    if (vocabulary.kinds[id] == TokenKind::unknown) unknown = (*vocabulary.tokens)[id];
  }
  JsonObject members;
  members["normalizer"] = normalizer_json(space_prefix);
  members["pre_tokenizer"] = nullptr;
  members["decoder"] = decoder_json(space_prefix);
  members["model"] = {{"type", "BPE"},           {"unk_token", std::move(unknown)},
                      {"fuse_unk", true},        {"byte_fallback", true},
                      {"vocab", std::move(ids)}, {"merges", std::move(merge_pairs)}};
  return members;
}

}  // namespace shoal::text
