// Token ids to text as they come. Every piece is whole UTF-8 characters, and all pieces with the flushed rest
// are the text that Tokenizer::decode gives for all tokens at once. One thread at a time; keeps its tokenizer
// alive.
#pragma once

#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace shoal::text {

class IncrementalDetokenizer {
 public:
  static Result<IncrementalDetokenizer> open(const Tokenizer& tokenizer, SpecialTokens special);
  IncrementalDetokenizer(IncrementalDetokenizer&&) noexcept;
  IncrementalDetokenizer& operator=(IncrementalDetokenizer&&) noexcept;
  ~IncrementalDetokenizer();

  // Empty while later tokens may still change what this one means: a character that is spread over tokens.
  Result<std::string> push(int32_t token);
  // What was held back, when no token follows; broken characters become U+FFFD.
  Result<std::string> flush();

 private:
  struct State;
  explicit IncrementalDetokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal::text
