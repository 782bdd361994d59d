#include "cli/tokenize_command.h"

#include <cstdio>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/error_line.h"
#include "cli/logits_command.h"
#include "formats/checkpoint.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace shoal::cli {

namespace {

constexpr uint64_t kMaxTextFileBytes = 64 * limits::kMiB;

void print_text(const std::string& text, bool as_json) {
  const std::string shown = as_json ? to_text(JsonObject{{"text", text}}) + "\n" : text;
  std::fwrite(shown.data(), 1, shown.size(), stdout);
}

Result<> tokenize(const TokenizeOptions& options) {
  SHOAL_TRY(const std::string text, read_text_file(options.text_file, kMaxTextFileBytes));
  SHOAL_TRY(const formats::Checkpoint checkpoint, formats::Checkpoint::open(options.path));
  SHOAL_TRY(const text::Tokenizer tokenizer, text::Tokenizer::open(checkpoint));
  SHOAL_TRY(const std::vector<int32_t> ids,
            tokenizer.encode(text, {.add_special_tokens = options.add_special_tokens}));
  if (options.json) {
    fmt::print("{{\"ids\":[{}]}}\n", fmt::join(ids, ","));
  } else {
    fmt::print("{}\n", fmt::join(ids, " "));
  }
  return {};
}

Result<> detokenize(const DetokenizeOptions& options) {
  std::vector<int32_t> tokens;
  if (!options.tokens.empty()) {
    SHOAL_TRY(tokens, parse_token_ids(options.tokens));
  }
  SHOAL_TRY(const formats::Checkpoint checkpoint, formats::Checkpoint::open(options.path));
  SHOAL_TRY(const text::Tokenizer tokenizer, text::Tokenizer::open(checkpoint));
  SHOAL_TRY(const std::string text,
            tokenizer.decode(
                tokens, options.skip_special_tokens ? text::SpecialTokens::skip : text::SpecialTokens::keep));
  print_text(text, options.json);
  return {};
}

Result<text::ChatInput> read_chat(const std::string& path) {
  SHOAL_TRY(const std::string content, read_text_file(path, kMaxTextFileBytes));
  SHOAL_TRY(const JsonObject object, parse_json_object(content, path));
  text::ChatInput input;
  SHOAL_TRY(const JsonArray* messages, get_array(object, "messages"));
  if (messages == nullptr)
    return fail(ErrorCode::invalid_argument, fmt::format("{}: 'messages' is missing", path));
  input.messages = *messages;
  SHOAL_TRY(const JsonArray* tools, get_array(object, "tools"));
  if (tools != nullptr) input.tools = *tools;
  SHOAL_TRY(const std::optional<bool> prompt, get_bool(object, "add_generation_prompt"));
  input.add_generation_prompt = prompt.value_or(input.add_generation_prompt);
  SHOAL_TRY(const JsonObject* extra, get_object(object, "extra"));
  if (extra != nullptr) input.variables = *extra;
  return input;
}

Result<> render(const RenderOptions& options) {
  SHOAL_TRY(const text::ChatInput input, read_chat(options.messages_file));
  SHOAL_TRY(const formats::Checkpoint checkpoint, formats::Checkpoint::open(options.path));
  SHOAL_TRY(const text::ChatTemplate chat_template, text::ChatTemplate::from_checkpoint(checkpoint));
  SHOAL_TRY(const std::string text, chat_template.render(input));
  print_text(text, options.json);
  return {};
}

int exit_code(const Result<>& done) {
  return done ? 0 : report_failure(done.error());
}

}  // namespace

int run_tokenize(const TokenizeOptions& options) {
  return exit_code(tokenize(options));
}
int run_detokenize(const DetokenizeOptions& options) {
  return exit_code(detokenize(options));
}
int run_render(const RenderOptions& options) {
  return exit_code(render(options));
}

}  // namespace shoal::cli
