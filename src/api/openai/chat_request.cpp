#include <fmt/format.h>

#include "api/fields.h"
#include "api/openai/chat.h"
#include "api/openai/messages.h"
#include "api/openai/sampling_fields.h"

namespace shoal::api::openai {
namespace {

constexpr int64_t kMaxTopLogprobs = 20;

void read_prompt(Fields& fields, serving::ChatPrompt& prompt) {
  fields.require("messages");
  if (const JsonArray* messages = fields.array("messages")) {
    auto normal = normalise_messages(*messages);
    if (!normal) return fields.fail(std::move(normal).error());
    prompt.messages = std::move(*normal);
  }
  if (const JsonArray* tools = fields.array("tools")) {
    auto checked = check_tools(*tools);
    if (!checked) return fields.fail(std::move(checked).error());
    prompt.tools = std::move(*checked);
  }
  if (const JsonObject* arguments = fields.object("chat_template_kwargs"))
    prompt.template_arguments = *arguments;
  if (auto effort = fields.string("reasoning_effort"))
    prompt.template_arguments["reasoning_effort"] = *effort;
}

// Free choice and no tools at all are served; a forced tool is refused rather than ignored.
void read_tool_choice(Fields& fields, serving::ChatPrompt& prompt) {
  const Json* choice = fields.any("tool_choice");
  if (!choice) return;
  if (!choice->is_string()) {
    return fields.fail(
        "tool_choice",
        "Unsupported value: 'tool_choice' naming a function is not supported yet; use 'auto' or 'none'.",
        "unsupported_value");
  }
  const std::string_view text(choice->get_string());
  if (text == "none") {
    prompt.tools.clear();
  } else if (text == "required") {
    fields.fail("tool_choice",
                "Unsupported value: 'tool_choice' does not support 'required' yet; use 'auto' or 'none'.",
                "unsupported_value");
  } else if (text != "auto") {
    fields.fail("tool_choice",
                fmt::format("Invalid value: '{}'. Supported values are: 'none' and 'auto'.", text),
                "invalid_value");
  }
}

void read_response_format(Fields& fields) {
  const JsonObject* format = fields.object("response_format");
  if (!format) return;
  const Json* type = find(*format, "type");
  if (!type || !type->is_string()) {
    return fields.fail("response_format.type", "Missing required parameter: 'response_format.type'.",
                       "missing_required_parameter");
  }
  if (type->get_string() != "text") {
    fields.fail(
        "response_format",
        fmt::format("Unsupported value: 'response_format' of type '{}' is not supported yet; only 'text' is.",
                    std::string_view(type->get_string())),
        "unsupported_value");
  }
}

void read_modalities(Fields& fields) {
  const JsonArray* modalities = fields.array("modalities");
  if (!modalities) return;
  for (const Json& modality : *modalities) {
    if (modality != "text") {
      fields.fail("modalities",
                  fmt::format("Unsupported value: {} in 'modalities'; only \"text\" is supported.",
                              to_text(modality)),
                  "unsupported_value");
    }
  }
}

void read_logprobs(Fields& fields, serving::GenerateRequest& request) {
  request.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMaxTopLogprobs);
  request.sampling.top_logprobs = static_cast<uint32_t>(top.value_or(0));
  if (top && *top > 0 && !request.logprobs) {
    fields.fail("top_logprobs", "'top_logprobs' is only taken with 'logprobs': true.", "invalid_value");
  }
}

}  // namespace

ApiResult<ChatCompletionRequest> parse_chat_request(const JsonObject& body) {
  ChatCompletionRequest request;
  Fields fields(body);
  const auto common = read_common(fields, request.generate);
  request.choices = common.choices;
  request.stream = common.stream;
  request.include_usage = common.include_usage;
  serving::ChatPrompt prompt;
  read_prompt(fields, prompt);
  read_tool_choice(fields, prompt);
  read_response_format(fields);
  read_modalities(fields);
  read_logprobs(fields, request.generate);
  request.generate.prompt = std::move(prompt);
  fields.ignore({"parallel_tool_calls", "verbosity", "prediction"});
  fields.unsupported("functions", "is deprecated and not supported; use 'tools'");
  fields.unsupported("function_call", "is deprecated and not supported; use 'tool_choice'");
  fields.unsupported("audio", "is not supported: models here answer in text");
  fields.unsupported("web_search_options", "is not supported: nothing here searches the web");
  if (auto error = fields.error()) return std::unexpected(std::move(*error));
  return request;
}

}  // namespace shoal::api::openai
