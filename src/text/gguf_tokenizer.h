// The tokenizer section of a GGUF header (tokenizer.ggml.*) rewritten as the tokenizer.json that it was made
// from. Private to this room.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "formats/gguf.h"

namespace shoal::text {

Result<std::string> tokenizer_json_from_gguf(const formats::GgufMetadata& metadata);

// tokenizer.ggml.token_type, as ggml numbers them.
enum class TokenKind : int64_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

// The checked arrays that both kinds of tokenizer start from.
struct GgufVocabulary {
  const std::vector<std::string>* tokens;
  std::vector<TokenKind> kinds;  // one per token; `normal` when the header has none
};
Result<GgufVocabulary> gguf_vocabulary(const formats::GgufMetadata& metadata);
// {"token": id, …} without the unused ones; a token that occurs twice is an Error.
Result<JsonObject> vocabulary_json(const GgufVocabulary& vocabulary);

// How tokenizer.ggml.pre splits text before byte-level BPE; nullopt for a name that is not known.
struct PreTokenizer {
  std::vector<std::string_view> patterns = {};  // applied one after the other; empty: GPT-2's own pattern
  bool single_digits = false;                   // digits one by one, before anything else
  bool ignore_merges = false;                   // a piece that is a token needs no merges
  bool nfc = false;                             // normalise to NFC first
  bool adds_bos = false;                        // when the header does not say
};
std::optional<PreTokenizer> pre_tokenizer_named(std::string_view name);

// The members of tokenizer.json that are particular to one kind of model: normalizer, pre_tokenizer, decoder,
// model.
Result<JsonObject> byte_level_json(const formats::GgufMetadata& metadata, const PreTokenizer& pre_tokenizer,
                                   const GgufVocabulary& vocabulary);
Result<JsonObject> sentencepiece_json(const formats::GgufMetadata& metadata,
                                      const GgufVocabulary& vocabulary);

}  // namespace shoal::text
