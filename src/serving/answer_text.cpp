#include "serving/answer_text.h"

namespace shoal::serving {

Result<AnswerText> AnswerText::open(const text::Tokenizer& tokenizer, std::vector<std::string> stop,
                                    TokenTexts texts) {
  SHOAL_TRY(text::IncrementalDetokenizer detokenizer,
            text::IncrementalDetokenizer::open(tokenizer, text::SpecialTokens::skip));
  return AnswerText(tokenizer, std::move(detokenizer), std::move(stop), texts);
}

Result<AnswerText::Output> AnswerText::push(std::span<const runtime::SampledToken> tokens) {
  Output output;
  for (const runtime::SampledToken& token : tokens) {
    SHOAL_TRY(const std::string piece, detokenizer_.push(token.token));
    TokenText entry{.text = {}, .sampled = token, .alternative_texts = {}};
    if (texts_ == TokenTexts::give) SHOAL_TRY_VOID(add_texts(entry));
    held_.push_back({std::move(entry), bytes_read_});
    bytes_read_ += piece.size();
    pass_on(output, piece);
    if (output.stop) break;
  }
  pass_tokens(output, /*all=*/false);
  return output;
}

Result<AnswerText::Output> AnswerText::finish() {
  Output output;
  SHOAL_TRY(const std::string rest, detokenizer_.flush());
  pass_on(output, rest);
  if (!output.stop) output.text += matcher_.flush();
  pass_tokens(output, /*all=*/!output.stop);
  return output;
}

Result<> AnswerText::add_texts(TokenText& entry) const {
  const auto text_of = [this](int32_t token) {
    return tokenizer_.decode(std::span(&token, 1), text::SpecialTokens::keep);
  };
  SHOAL_TRY(entry.text, text_of(entry.sampled.token));
  for (const runtime::TokenLogprob& alternative : entry.sampled.alternatives) {
    SHOAL_TRY(std::string text, text_of(alternative.token));
    entry.alternative_texts.push_back(std::move(text));
  }
  return {};
}

void AnswerText::pass_on(Output& output, std::string_view piece) {
  text::StopMatcher::Output matched = matcher_.push(piece);
  output.text += matched.text;
  bytes_passed_ += matched.text.size();
  if (matched.stop) output.stop = stop_[*matched.stop];
}

void AnswerText::pass_tokens(Output& output, bool all) {
  while (!held_.empty() && (all || held_.front().first_byte < bytes_passed_)) {
    output.tokens.push_back(std::move(held_.front().token));
    held_.pop_front();
  }
}

}  // namespace shoal::serving
