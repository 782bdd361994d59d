#include "text/gguf_tokenizer.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "text/special_names.h"

namespace shoal::text {

namespace {

// Control and user-defined tokens; only control tokens are special. Hugging Face matches both in the raw
// text.
JsonArray added_tokens_json(const GgufVocabulary& vocabulary) {
  JsonArray added;
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const TokenKind kind = vocabulary.kinds[id];
    const std::string& content = (*vocabulary.tokens)[id];
    if ((kind != TokenKind::control && kind != TokenKind::user_defined) || content.empty()) continue;
    added.push_back({{"id", id},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", kind == TokenKind::control}});
  }
  return added;
}

// {"SpecialToken": {"id": "<s>", "type_id": 0}}
JsonObject template_piece(std::string_view kind, std::string_view id, int type_id) {
  JsonObject members;
  members["id"] = id;
  members["type_id"] = type_id;
  JsonObject piece;
  piece[kind] = std::move(members);
  return piece;
}

void add_special_token(JsonArray& sequence, JsonObject& known, const GgufVocabulary& vocabulary,
                       const std::string& name) {
  size_t id = 0;
  while ((*vocabulary.tokens)[id] != name) ++id;
  sequence.push_back(template_piece("SpecialToken", name, 0));
  known[name] = {{"id", name}, {"ids", JsonArray{id}}, {"tokens", JsonArray{Json(name)}}};
}

// What stands before and after a text: bos and eos, when the header wants them.
Result<Json> post_processor_json(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary,
                                 bool adds_bos_by_default) {
  SHOAL_TRY(SpecialNames names, special_names_from_gguf(metadata));
  SHOAL_TRY(std::optional<bool> add_bos, metadata.get_bool("tokenizer.ggml.add_bos_token"));
  SHOAL_TRY(std::optional<bool> add_eos, metadata.get_bool("tokenizer.ggml.add_eos_token"));
  const bool with_bos = names.bos.has_value() && add_bos.value_or(adds_bos_by_default);
  const bool with_eos = names.eos.has_value() && add_eos.value_or(false);
  if (!with_bos && !with_eos) return Json(nullptr);

  JsonArray single;
  JsonObject known;
  if (with_bos) add_special_token(single, known, vocabulary, *names.bos);
  single.push_back(template_piece("Sequence", "A", 0));
  if (with_eos) add_special_token(single, known, vocabulary, *names.eos);
  // Pairs of texts do not occur here; the format asks for the member.
  const JsonArray pair = {template_piece("Sequence", "A", 0), template_piece("Sequence", "B", 1)};
  return Json{{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", known}};
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

Json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json pre_tokenizer_json(const PreTokenizer& pre_tokenizer) {
  JsonArray steps;
  if (pre_tokenizer.single_digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  for (std::string_view pattern : pre_tokenizer.patterns) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back(byte_level(pre_tokenizer.patterns.empty()));
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

}  // namespace

Result<GgufVocabulary> gguf_vocabulary(const formats::GgufMetadata& metadata) {
  GgufVocabulary vocabulary{.tokens = metadata.find_strings("tokenizer.ggml.tokens"), .kinds = {}};
  if (vocabulary.tokens == nullptr || vocabulary.tokens->empty()) {
    return fail(ErrorCode::malformed, "the GGUF file has no tokenizer (tokenizer.ggml.tokens)");
  }
  const size_t count = vocabulary.tokens->size();
  if (count > limits::kMaxVocabulary) {
    return fail(ErrorCode::limit_exceeded, fmt::format("tokenizer.ggml.tokens has {} tokens", count));
  }
  vocabulary.kinds.assign(count, TokenKind::normal);
  if (metadata.find("tokenizer.ggml.token_type") == nullptr) return vocabulary;
  const std::vector<int64_t> kinds = metadata.integers("tokenizer.ggml.token_type");
  if (kinds.size() != count) {
    return fail(ErrorCode::malformed,
                fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens", kinds.size(), count));
  }
  for (size_t id = 0; id < count; ++id) vocabulary.kinds[id] = static_cast<TokenKind>(kinds[id]);
  return vocabulary;
}

Result<JsonObject> vocabulary_json(const GgufVocabulary& vocabulary) {
  JsonObject ids;
  ids.reserve(vocabulary.tokens->size());
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    if (vocabulary.kinds[id] == TokenKind::unused) continue;
    const std::string& token = (*vocabulary.tokens)[id];
    if (!ids.emplace(token, id).second) {
      return fail(ErrorCode::malformed, fmt::format("tokenizer.ggml.tokens: '{}' occurs twice", token));
    }
  }
  return ids;
}

Result<JsonObject> byte_level_json(const formats::GgufMetadata& metadata, const PreTokenizer& pre_tokenizer,
                                   const GgufVocabulary& vocabulary) {
  SHOAL_TRY(JsonObject ids, vocabulary_json(vocabulary));
  SHOAL_TRY(JsonArray merges, merges_json(metadata));
  JsonObject members;
  members["normalizer"] = pre_tokenizer.nfc ? Json{{"type", "NFC"}} : Json(nullptr);
  members["pre_tokenizer"] = pre_tokenizer_json(pre_tokenizer);
  members["decoder"] = byte_level(true);
  members["model"] = {{"type", "BPE"},
                      {"ignore_merges", pre_tokenizer.ignore_merges},
                      {"vocab", std::move(ids)},
                      {"merges", std::move(merges)}};
  return members;
}

Result<std::string> tokenizer_json_from_gguf(const formats::GgufMetadata& metadata) {
  SHOAL_TRY(std::string model, metadata.require_string("tokenizer.ggml.model"));
  SHOAL_TRY(GgufVocabulary vocabulary, gguf_vocabulary(metadata));
  JsonObject members;
  bool adds_bos = true;
  if (model == "gpt2") {
    SHOAL_TRY(std::optional<std::string> name, metadata.get_string("tokenizer.ggml.pre"));
    const std::optional<PreTokenizer> pre_tokenizer = pre_tokenizer_named(name.value_or("default"));
    if (!pre_tokenizer.has_value()) {
      return fail(ErrorCode::unsupported,
                  fmt::format("the pre-tokenizer '{}' (tokenizer.ggml.pre) is not known", *name),
                  "use the model's safetensors files, which bring their own tokenizer.json");
    }
    adds_bos = pre_tokenizer->adds_bos;
    SHOAL_TRY(members, byte_level_json(metadata, *pre_tokenizer, vocabulary));
  } else if (model == "llama") {
    SHOAL_TRY(members, sentencepiece_json(metadata, vocabulary));
  } else {
    return fail(ErrorCode::unsupported,
                fmt::format("the tokenizer '{}' (tokenizer.ggml.model) is not known", model),
                "use the model's safetensors files, which bring their own tokenizer.json");
  }
  members["version"] = "1.0";
  members["added_tokens"] = added_tokens_json(vocabulary);
  SHOAL_TRY(members["post_processor"], post_processor_json(metadata, vocabulary, adds_bos));
  return to_text(members);
}

}  // namespace shoal::text
