// Text to token ids and back, exactly as Hugging Face `tokenizers` does it, from a tokenizer.json or from the
// tokenizer section of a GGUF file. A Tokenizer is a shared handle: cheap to copy and move, and its const
// methods may be called from any number of threads.
//
// Control tokens such as <|im_end|> that are written out in a text become the token by default, as in Hugging
// Face. Text that a user wrote must be encoded with SpecialText::as_text, or, inside a chat, by encode_chat
// (chat_encoder.h). Other added tokens, such as <think>, are ordinary words and always recognised.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::text {

enum class SpecialText {
  as_control,  // "<|im_end|>" in the text becomes that token
  as_text,     // it becomes the tokens of its letters
};

enum class SpecialTokens { keep, skip };

struct EncodeOptions {
  bool add_special_tokens = true;  // what the tokenizer puts around a text, such as a leading bos
  SpecialText special_text = SpecialText::as_control;
};

struct AddedToken {
  int32_t id;
  std::string content;
  bool special;  // left out by SpecialTokens::skip
  bool control;  // steers the model: the special ones, and others that are written <|…|> or <｜…｜>
};

class Tokenizer {
 public:
  static Result<Tokenizer> from_json(std::string_view tokenizer_json);
  // Byte-level BPE ("gpt2"), SentencePiece BPE ("llama", "gemma4") and unigram ("t5"); any other model or an
  // unknown pre-tokenizer is `unsupported` and named.
  static Result<Tokenizer> from_gguf(const formats::GgufMetadata& metadata);
  // From the GGUF header, or from tokenizer.json (and the bos of tokenizer_config.json) beside the weights.
  static Result<Tokenizer> open(const formats::Checkpoint& checkpoint);

  Result<std::vector<int32_t>> encode(std::string_view text, EncodeOptions options = {}) const;
  // Without added special tokens; a control token written in the text is text when one of `cuts` (rising byte
  // offsets into `text`) lies behind one of its characters. What encode_chat is made of.
  Result<std::vector<int32_t>> encode_with_cuts(std::string_view text, std::span<const size_t> cuts) const;

  // Ids that name no token are skipped; bytes that are not UTF-8 become U+FFFD. A negative id is an Error.
  Result<std::string> decode(std::span<const int32_t> tokens, SpecialTokens special) const;

  size_t vocabulary_size() const;                             // one more than the largest id
  std::optional<int32_t> find(std::string_view token) const;  // by its spelling in the vocabulary
  std::optional<std::string> token(int32_t id) const;         // its spelling in the vocabulary
  std::optional<int32_t> bos_id() const;                      // as the model's files name it
  const std::vector<AddedToken>& added_tokens() const;        // in order of ids

  struct State;
  const State& state() const { return *state_; }

 private:
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  static Result<Tokenizer> open_json(std::string_view tokenizer_json, std::optional<std::string> bos_token);

  std::shared_ptr<const State> state_;
};

}  // namespace shoal::text
