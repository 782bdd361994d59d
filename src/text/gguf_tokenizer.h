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
  undefined = 0,
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

// What both kinds of tokenizer start from, checked and with the spellings that tokenizer.json has.
struct GgufVocabulary {
  std::vector<std::string> tokens;
  std::vector<TokenKind> kinds;  // one per token; `normal` when the header has none
};
Result<GgufVocabulary> gguf_vocabulary(const formats::GgufMetadata& metadata);
// {"token": id, …} without the unused ones; a token that occurs twice is an Error.
Result<JsonObject> vocabulary_json(const GgufVocabulary& vocabulary);
// tokenizer.ggml.merges
Result<JsonArray> merges_json(const formats::GgufMetadata& metadata);

// How a text is cut into pieces before byte-level BPE; each step works on the pieces of the one before.
struct PreTokenizer {
  enum class Step {
    split,      // every match of `pattern` is a piece
    words,      // GPT-2's own pattern; what follows sees GPT-2's alphabet of bytes
    one_digit,  // every digit is a piece
    digit_run,  // every run of digits
    punctuation_run,
  };
  struct Piece {
    Step step;
    std::string_view pattern = {};  // for `split`
  };
  std::vector<Piece> pieces;
  bool ignore_merges = false;  // a piece that is a token needs no merges
  bool nfc = false;            // normalise to NFC first
  bool adds_bos = false;       // when the header does not say
};
// By tokenizer.ggml.pre; nullopt for a name that is not known.
std::optional<PreTokenizer> pre_tokenizer_named(std::string_view name);

// The members of tokenizer.json that are particular to one kind of model: normalizer, pre_tokenizer, decoder,
// model.
Result<JsonObject> byte_level_json(const formats::GgufMetadata& metadata, const PreTokenizer& pre_tokenizer,
                                   const GgufVocabulary& vocabulary);
// SentencePiece BPE: merges from scores, or listed in the header (Gemma 4).
Result<JsonObject> sentencepiece_json(const formats::GgufMetadata& metadata,
                                      const GgufVocabulary& vocabulary);
Result<JsonObject> raw_bpe_json(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary);
// SentencePiece unigram, which ggml calls "t5".
Result<JsonObject> unigram_json(const formats::GgufMetadata& metadata, const GgufVocabulary& vocabulary);

// tokenizer.ggml.scores, one per token; malformed when they are not there.
Result<const std::vector<double>*> token_scores(const formats::GgufMetadata& metadata,
                                                const GgufVocabulary& vocabulary);

}  // namespace shoal::text
