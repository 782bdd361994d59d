// An answer as its client reads it: tokens in, text out, with stop strings taken care of. Pure.
#pragma once

#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "serving/service.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"

namespace shoal::serving {

class AnswerText {
 public:
  enum class TokenTexts { give, leave_out };  // of TokenText, which cost a decode each
  struct Output {
    std::string text;                 // whole characters
    std::vector<TokenText> tokens;    // those whose text has begun to be passed on
    std::optional<std::string> stop;  // the stop string that ended the answer; push nothing after it
  };

  static Result<AnswerText> open(const text::Tokenizer& tokenizer, std::vector<std::string> stop,
                                 TokenTexts texts);

  Result<Output> push(std::span<const runtime::SampledToken> tokens);
  // The answer has ended: what was held back for a stop string or a broken character.
  Result<Output> finish();

 private:
  AnswerText(const text::Tokenizer& tokenizer, text::IncrementalDetokenizer detokenizer,
             std::vector<std::string> stop, TokenTexts texts)
      : tokenizer_(tokenizer),
        detokenizer_(std::move(detokenizer)),
        stop_(stop),
        matcher_(std::move(stop)),
        texts_(texts) {}
  Result<> add_texts(TokenText& entry) const;
  void pass_on(Output& output, std::string_view piece);
  void pass_tokens(Output& output, bool all);

  struct Held {
    TokenText token;
    uint64_t first_byte;  // of its text in the answer
  };
  text::Tokenizer tokenizer_;
  text::IncrementalDetokenizer detokenizer_;
  std::vector<std::string> stop_;
  text::StopMatcher matcher_;
  TokenTexts texts_;
  std::deque<Held> held_;
  uint64_t bytes_read_ = 0;
  uint64_t bytes_passed_ = 0;
};

}  // namespace shoal::serving
