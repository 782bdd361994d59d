#include <fmt/format.h>
#include <limits>

#include "api/fields.h"
#include "api/openai/sampling_fields.h"
#include "api/openai/text.h"
#include "base/limits.h"

namespace shoal::api::openai {
namespace {

constexpr int64_t kMaxLogprobs = 5;
constexpr uint32_t kDefaultMaxTokens = 16;  // what this endpoint has always meant by an absent max_tokens

std::optional<std::vector<int32_t>> as_tokens(const JsonArray& array) {
  std::vector<int32_t> tokens;
  for (const Json& element : array) {
    if (!element.is_int64() || element.get_int64() < 0 ||
        element.get_int64() > std::numeric_limits<int32_t>::max())
      return {};
    tokens.push_back(static_cast<int32_t>(element.get_int64()));
  }
  return tokens;
}

// One prompt: a string or a list of token ids.
std::optional<serving::Prompt> as_prompt(const Json& value) {
  if (value.is_string()) return serving::TextPrompt{std::string(value.get_string())};
  if (!value.is_array() || value.get_array().empty()) return {};
  if (auto tokens = as_tokens(value.get_array())) return std::move(*tokens);
  return {};
}

std::vector<serving::Prompt> read_prompts(Fields& fields) {
  fields.require("prompt");
  const Json* value = fields.any("prompt");
  if (!value) return {};
  if (auto prompt = as_prompt(*value)) return {std::move(*prompt)};
  std::vector<serving::Prompt> prompts;
  for (const Json& element : value->is_array() ? value->get_array() : JsonArray()) {
    auto prompt = as_prompt(element);
    if (!prompt) {
      prompts.clear();
      break;
    }
    prompts.push_back(std::move(*prompt));
  }
  if (prompts.empty()) {
    fields.fail("prompt",
                "Invalid type for 'prompt': expected a string, a list of token ids, or a list of these.",
                "invalid_type");
  }
  return prompts;
}

}  // namespace

ApiResult<TextCompletionRequest> parse_text_request(const JsonObject& body) {
  TextCompletionRequest request;
  Fields fields(body);
  serving::GenerateRequest base;
  const auto common = read_common(fields, base);
  if (!base.max_tokens) base.max_tokens = kDefaultMaxTokens;
  request.choices = common.choices;
  request.stream = common.stream;
  request.include_usage = common.include_usage;
  if (const auto top = fields.integer("logprobs", 0, kMaxLogprobs)) {
    request.logprobs = base.logprobs = true;
    base.sampling.top_logprobs = static_cast<uint32_t>(*top);
  }
  auto prompts = read_prompts(fields);
  if (prompts.size() * request.choices > limits::kMaxChoices) {
    fields.fail("prompt",
                fmt::format("Invalid 'prompt': {} prompts with n = {} make more than {} choices.",
                            prompts.size(), request.choices, limits::kMaxChoices),
                "array_above_max_length");
  }
  if (fields.boolean("echo").value_or(false)) {
    fields.fail("echo", "Unsupported parameter: 'echo' is not supported.", "unsupported_parameter");
  }
  if (const auto best = fields.integer("best_of", 1, limits::kMaxChoices); best && *best != request.choices) {
    fields.fail("best_of", "Unsupported parameter: 'best_of' other than 'n' is not supported.",
                "unsupported_parameter");
  }
  if (const auto suffix = fields.string("suffix"); suffix && !suffix->empty()) {
    fields.fail("suffix", "Unsupported parameter: 'suffix' is not supported.", "unsupported_parameter");
  }
  if (auto error = fields.error()) return std::unexpected(std::move(*error));
  for (auto& prompt : prompts) {
    request.generate.push_back(base);
    request.generate.back().prompt = std::move(prompt);
  }
  return request;
}

}  // namespace shoal::api::openai
