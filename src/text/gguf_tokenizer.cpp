#include "text/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "text/special_names.h"

namespace shoal::text {

namespace {

// Converters mark everything that looks like <|…|> as a control token. Published tokenizer.json files call
// these ordinary words, which matters when control tokens are left out of an answer: tool calls are read from
// it.
constexpr std::array<std::string_view, 11> kOrdinaryBeginnings = {"<｜User｜>",
                                                                  "<｜Assistant｜>",
                                                                  "<｜tool▁",
                                                                  "<｜fim▁",
                                                                  "<|fim_",
                                                                  "<|repo_name|>",
                                                                  "<|file_sep|>",
                                                                  "<|tool_calls_section_",
                                                                  "<|tool_call_begin",
                                                                  "<|tool_call_end",
                                                                  "<|tool_call_argument_"};

bool is_special(TokenKind kind, std::string_view content) {
  if (kind == TokenKind::unknown) return true;
  return kind == TokenKind::control &&
         std::ranges::none_of(kOrdinaryBeginnings,
                              [&](std::string_view beginning) { return content.starts_with(beginning); });
}

// Phi-3's tokens take the whitespace behind them with them, which the header does not say; llama.cpp goes by
// the model's name too.
bool strips_right(const std::string& architecture, std::string_view model, std::string_view content) {
  return architecture == "phi3" && model == "llama" && content != "<unk>" && content != "<s>" &&
         content != "<|endoftext|>";
}

// Control, unknown and user-defined tokens. Hugging Face matches all of them in the raw text.
Result<JsonArray> added_tokens_json(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary,
                                    std::string_view model) {
  SHOAL_TRY(std::optional<std::string> architecture, metadata.get_string("general.architecture"));
  JsonArray added;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const TokenKind kind = vocabulary.kinds[id];
    const std::string& content = vocabulary.tokens[id];
    const bool is_added =
        kind == TokenKind::control || kind == TokenKind::user_defined || kind == TokenKind::unknown;
    if (!is_added) continue;
    const bool rstrip = kind == TokenKind::control && strips_right(architecture.value_or(""), model, content);
    added.push_back({{"id", id},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", rstrip},
                     {"normalized", false},
                     {"special", is_special(kind, content)}});
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
  const auto found = std::ranges::find(vocabulary.tokens, name);
  if (found == vocabulary.tokens.end()) return;
  const auto id = found - vocabulary.tokens.begin();
  sequence.push_back(template_piece("SpecialToken", name, 0));
  known[name] = {{"id", name}, {"ids", JsonArray{id}}, {"tokens", JsonArray{Json(name)}}};
}

struct Surroundings {
  bool bos = false;
  bool eos = false;
};

// What stands before and after a text: bos and eos, when the header wants them.
Result<Json> post_processor_json(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary,
                                 Surroundings by_default) {
  SHOAL_TRY(SpecialNames names, special_names_from_gguf(metadata));
  SHOAL_TRY(std::optional<bool> add_bos, metadata.get_bool("tokenizer.ggml.add_bos_token"));
  SHOAL_TRY(std::optional<bool> add_eos, metadata.get_bool("tokenizer.ggml.add_eos_token"));
  const bool with_bos = names.bos.has_value() && add_bos.value_or(by_default.bos);
  const bool with_eos = names.eos.has_value() && add_eos.value_or(by_default.eos);
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

Json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json step_json(const PreTokenizer::Piece& piece) {
  using Step = PreTokenizer::Step;
  switch (piece.step) {
    case Step::split:
      return {{"type", "Split"},
              {"pattern", {{"Regex", piece.pattern}}},
              {"behavior", "Isolated"},
              {"invert", false}};
    case Step::words:
      return byte_level(true);
    case Step::one_digit:
      return {{"type", "Digits"}, {"individual_digits", true}};
    case Step::digit_run:
      return {{"type", "Digits"}, {"individual_digits", false}};
    case Step::punctuation_run:
      break;
  }
  return {{"type", "Punctuation"}, {"behavior", "Contiguous"}};
}

Json pre_tokenizer_json(const PreTokenizer& pre_tokenizer) {
  JsonArray steps;
  for (const PreTokenizer::Piece& piece : pre_tokenizer.pieces) steps.push_back(step_json(piece));
  const bool has_words = std::ranges::any_of(pre_tokenizer.pieces, [](const PreTokenizer::Piece& piece) {
    return piece.step == PreTokenizer::Step::words;
  });
  if (!has_words) steps.push_back(byte_level(false));
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Result<PreTokenizer> require_pre_tokenizer(const formats::GgufMetadata& metadata) {
  SHOAL_TRY(std::optional<std::string> name, metadata.get_string("tokenizer.ggml.pre"));
  std::optional<PreTokenizer> known = pre_tokenizer_named(name.value_or("default"));
  if (known.has_value()) return *std::move(known);
  return fail(ErrorCode::unsupported,
              fmt::format("the pre-tokenizer '{}' (tokenizer.ggml.pre) is not known", *name),
              "use the model's safetensors files, which bring their own tokenizer.json");
}

// Byte-level BPE in name only: the letters are raw, as in SentencePiece.
bool is_raw_bpe(std::string_view model, std::string_view pre) {
  return model == "gemma4" || (model == "gpt2" && (pre == "gemma4" || pre == "sarvam-moe"));
}

struct Members {
  JsonObject json;
  Surroundings by_default;
};

Result<Members> model_members(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary,
                              std::string_view model) {
  Members members;
  SHOAL_TRY(std::optional<std::string> pre, metadata.get_string("tokenizer.ggml.pre"));
  if (is_raw_bpe(model, pre.value_or(""))) {
    SHOAL_TRY(members.json, raw_bpe_json(metadata, vocabulary));
    members.by_default.bos = pre != "sarvam-moe";
  } else if (model == "gpt2") {
    SHOAL_TRY(PreTokenizer pre_tokenizer, require_pre_tokenizer(metadata));
    SHOAL_TRY(members.json, byte_level_json(metadata, pre_tokenizer, vocabulary));
    members.by_default.bos = pre_tokenizer.adds_bos;
  } else if (model == "llama") {
    SHOAL_TRY(members.json, sentencepiece_json(metadata, vocabulary));
    members.by_default.bos = true;
  } else if (model == "t5") {
    SHOAL_TRY(members.json, unigram_json(metadata, vocabulary));
    members.by_default.eos = true;
  } else {
    return fail(ErrorCode::unsupported,
                fmt::format("the tokenizer '{}' (tokenizer.ggml.model) is not known", model),
                "use the model's safetensors files, which bring their own tokenizer.json");
  }
  return members;
}

}  // namespace

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
  SHOAL_TRY(Members members, model_members(metadata, vocabulary, model));
  members.json["version"] = "1.0";
  SHOAL_TRY(members.json["added_tokens"], added_tokens_json(metadata, vocabulary, model));
  SHOAL_TRY(members.json["post_processor"], post_processor_json(metadata, vocabulary, members.by_default));
  return to_text(members.json);
}

}  // namespace shoal::text
