#include "text/chat_template.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "text/bridge_call.h"
#include "text/special_names.h"

namespace shoal::text {

namespace {

using TemplateHandle = std::unique_ptr<shoal_template, decltype(&shoal_template_free)>;

Result<TemplateHandle> parse(std::string_view source) {
  if (source.size() > limits::kMaxTemplateBytes) {
    return fail(ErrorCode::limit_exceeded, fmt::format("the chat template has {} bytes, over {}",
                                                       source.size(), limits::kMaxTemplateBytes));
  }
  const shoal_template_limits bounds{.fuel = limits::kTemplateFuel,
                                     .memory_bytes = kTemplateMemoryBytes,
                                     .output_bytes = limits::kMaxRenderedBytes,
                                     .time_ms = kTemplateTimeMs};
  shoal_template* parsed = nullptr;
  auto outcome = bridge_call(
      [&](char** error) { return shoal_template_open(view_of(source), &bounds, &parsed, error); });
  if (!outcome.has_value()) {
    // A template that cannot even be parsed is the file's fault, whatever the parser says.
    if (outcome.error().code != ErrorCode::limit_exceeded) outcome.error().code = ErrorCode::malformed;
    return std::unexpected(std::move(outcome).error());
  }
  return TemplateHandle(parsed, &shoal_template_free);
}

JsonArray without_null_members(const JsonArray& messages) {
  JsonArray kept;
  kept.reserve(messages.size());
  for (const Json& message : messages) {
    const JsonObject* object = message.if_object();
    if (object == nullptr) {
      kept.push_back(message);
      continue;
    }
    JsonObject copy;
    for (const auto& [name, value] : *object) {
      if (!value.is_null()) copy.emplace(name, value);
    }
    kept.push_back(std::move(copy));
  }
  return kept;
}

// "chat_template": "…" or [{"name": "default", "template": "…"}, {"name": "tool_use", "template": "…"}]
Result<> read_config_templates(const JsonObject& config, std::string& text,
                               std::optional<std::string>& tool_text) {
  const Json* value = find(config, "chat_template");
  if (value == nullptr || value->is_null()) return {};
  const JsonArray* list = value->if_array();
  if (list == nullptr) {
    SHOAL_TRY(text, require_string(config, "chat_template"));
    return {};
  }
  for (const Json& entry : *list) {
    const JsonObject* named = entry.if_object();
    if (named == nullptr) return fail(ErrorCode::malformed, "chat_template: a list entry is not an object");
    SHOAL_TRY(std::string name, require_string(*named, "name"));
    SHOAL_TRY(std::string source, require_string(*named, "template"));
    if (name == "default")
      text = std::move(source);
    else if (name == "tool_use")
      tool_text = std::move(source);
  }
  return {};
}

Result<ChatTemplate::Source> source_beside(const formats::Checkpoint& checkpoint) {
  ChatTemplate::Source source;
  auto file = checkpoint.read_sibling("chat_template.jinja", limits::kMaxTemplateBytes);
  if (file.has_value()) {
    source.text = *std::move(file);
    return source;
  }
  if (file.error().code != ErrorCode::not_found) return std::unexpected(std::move(file).error());
  SHOAL_TRY(JsonObject config, read_tokenizer_config(checkpoint));
  SHOAL_TRY_VOID(read_config_templates(config, source.text, source.tool_text));
  if (!source.text.empty() || source.tool_text.has_value()) return source;
  auto json = checkpoint.read_sibling("chat_template.json", limits::kMaxConfigBytes);
  if (json.has_value()) {
    SHOAL_TRY(JsonObject object, parse_json_object(*json, "chat_template.json"));
    SHOAL_TRY_VOID(read_config_templates(object, source.text, source.tool_text));
  } else if (json.error().code != ErrorCode::not_found) {
    return std::unexpected(std::move(json).error());
  }
  return source;
}

Result<ChatTemplate::Source> source_of_gguf(const formats::GgufMetadata& metadata) {
  ChatTemplate::Source source;
  SHOAL_TRY(std::optional<std::string> text, metadata.get_string("tokenizer.chat_template"));
  source.text = std::move(text).value_or("");
  SHOAL_TRY(source.tool_text, metadata.get_string("tokenizer.chat_template.tool_use"));
  return source;
}

}  // namespace

struct ChatTemplate::State {
  Source source;
  TemplateHandle chat;
  TemplateHandle tool_chat;  // null unless the model has one
};

Result<ChatTemplate> ChatTemplate::open(Source source) {
  SHOAL_TRY(TemplateHandle chat, parse(source.text));
  TemplateHandle tool_chat(nullptr, &shoal_template_free);
  if (source.tool_text.has_value()) {
    SHOAL_TRY(tool_chat, parse(*source.tool_text));
  }
  return ChatTemplate(std::make_shared<State>(std::move(source), std::move(chat), std::move(tool_chat)));
}

Result<ChatTemplate> ChatTemplate::from_checkpoint(const formats::Checkpoint& checkpoint) {
  Source source;
  SpecialNames names;
  if (const formats::GgufMetadata* metadata = checkpoint.gguf()) {
    SHOAL_TRY(source, source_of_gguf(*metadata));
    SHOAL_TRY(names, special_names_from_gguf(*metadata));
  } else {
    SHOAL_TRY(source, source_beside(checkpoint));
    SHOAL_TRY(names, special_names_beside(checkpoint));
  }
  if (source.text.empty() && source.tool_text.has_value()) source.text = *source.tool_text;
  if (source.text.empty()) {
    return fail(ErrorCode::not_found, fmt::format("{} has no chat template", checkpoint.path().string()),
                "use the completions API, which takes plain text");
  }
  source.bos_token = std::move(names.bos);
  source.eos_token = std::move(names.eos);
  source.unk_token = std::move(names.unk);
  source.pad_token = std::move(names.pad);
  return open(std::move(source));
}

Result<std::string> ChatTemplate::render(const ChatInput& input) const {
  if (input.messages.size() > limits::kMaxMessages) {
    return fail(ErrorCode::limit_exceeded, fmt::format("{} messages, over the limit of {}",
                                                       input.messages.size(), limits::kMaxMessages));
  }
  JsonObject variables;
  const Source& source = state_->source;
  for (const auto& [name, token] : {std::pair("bos_token", &source.bos_token),
                                    {"eos_token", &source.eos_token},
                                    {"unk_token", &source.unk_token},
                                    {"pad_token", &source.pad_token}}) {
    if (token->has_value()) variables[name] = **token;
  }
  for (const auto& [name, value] : input.variables) variables[name] = value;
  variables["messages"] = without_null_members(input.messages);
  variables["tools"] = input.tools;
  variables["documents"] = variables.contains("documents") ? variables["documents"] : Json(nullptr);
  variables["add_generation_prompt"] = input.add_generation_prompt;
  const std::string variables_text = to_text(variables);

  const bool has_tools = input.tools.is_array() && !input.tools.get_array().empty();
  const TemplateHandle& chosen = has_tools && state_->tool_chat != nullptr ? state_->tool_chat : state_->chat;
  return bridge_text([&](char** text, size_t* size, char** error) {
    return shoal_template_render(chosen.get(), view_of(variables_text), input.unix_seconds, text, size,
                                 error);
  });
}

bool ChatTemplate::has_tool_template() const {
  return state_->tool_chat != nullptr;
}

bool ChatTemplate::mentions(std::string_view text) const {
  return state_->source.text.find(text) != std::string::npos ||
         state_->source.tool_text.value_or("").find(text) != std::string::npos;
}

}  // namespace shoal::text
