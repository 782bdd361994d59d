#include "api/openai/messages.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "api/fields.h"
#include "base/limits.h"

namespace shoal::api::openai {
namespace {

std::unexpected<ApiError> wrong(std::string where, std::string message, std::string code) {
  return std::unexpected(ApiError{400, std::move(message), std::move(where), std::move(code)});
}

std::unexpected<ApiError> wrong_type(const std::string& where, std::string_view expected, const Json& value) {
  return wrong(where,
               fmt::format("Invalid type for '{}': expected {}, but got {} instead.", where, expected,
                           kind_name(value)),
               "invalid_type");
}

std::unexpected<ApiError> missing(const std::string& where) {
  return wrong(where, fmt::format("Missing required parameter: '{}'.", where), "missing_required_parameter");
}

ApiResult<std::string> text_of_part(const Json& part, const std::string& where) {
  if (!part.is_object()) return wrong_type(where, "an object", part);
  const Json* type = find(part.get_object(), "type");
  if (!type) return missing(where + ".type");
  if (!type->is_string()) return wrong_type(where + ".type", "a string", *type);
  const std::string_view name(type->get_string());
  if (name != "text" && name != "refusal") {
    return wrong(
        where + ".type",
        fmt::format("Invalid value: '{}'. Content parts of this type are not supported here; send 'text'.",
                    name),
        "unsupported_value");
  }
  const Json* text = find(part.get_object(), name);
  if (!text) return missing(fmt::format("{}.{}", where, name));
  if (!text->is_string()) return wrong_type(fmt::format("{}.{}", where, name), "a string", *text);
  return std::string(text->get_string());
}

// A string stays; text parts are joined as they stand.
ApiResult<std::string> text_of_content(const Json& content, const std::string& where) {
  if (content.is_string()) return std::string(content.get_string());
  if (!content.is_array()) return wrong_type(where, "a string or an array of content parts", content);
  std::string joined;
  for (size_t i = 0; i < content.get_array().size(); ++i) {
    auto text = text_of_part(content.get_array()[i], fmt::format("{}[{}]", where, i));
    if (!text) return std::unexpected(std::move(text).error());
    joined += *text;
  }
  return joined;
}

ApiResult<JsonObject> normalise_tool_call(const Json& value, const std::string& where) {
  if (!value.is_object()) return wrong_type(where, "an object", value);
  JsonObject call = value.get_object();
  const Json* function = find(call, "function");
  if (!function) return missing(where + ".function");
  if (!function->is_object()) return wrong_type(where + ".function", "an object", *function);
  const Json* name = find(function->get_object(), "name");
  if (!name || !name->is_string()) return missing(where + ".function.name");
  const Json* arguments = find(function->get_object(), "arguments");
  if (arguments && arguments->is_string()) {
    // Templates print arguments as JSON; as a string they would be quoted twice.
    if (auto parsed = parse_json_object(std::string_view(arguments->get_string()), "arguments")) {
      call["function"].as_object()["arguments"] = std::move(*parsed);
    }
  }
  return call;
}

ApiResult<JsonObject> normalise_message(const Json& value, const std::string& where) {
  static constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                             "tool"};
  if (!value.is_object()) return wrong_type(where, "an object", value);
  const JsonObject& given = value.get_object();
  const Json* role_value = find(given, "role");
  if (!role_value) return missing(where + ".role");
  if (!role_value->is_string()) return wrong_type(where + ".role", "a string", *role_value);
  const std::string_view role(role_value->get_string());
  if (std::ranges::find(kRoles, role) == kRoles.end()) {
    return wrong(where + ".role",
                 fmt::format("Invalid value: '{}'. Supported values are: 'system', 'developer', 'user', "
                             "'assistant' and 'tool'.",
                             role),
                 "invalid_value");
  }
  JsonObject message;
  message["role"] = role == "developer" ? "system" : role;
  const Json* content = find(given, "content");
  const Json* tool_calls = find(given, "tool_calls");
  if (!content && role != "assistant") return missing(where + ".content");
  std::string text;
  if (content) {
    auto joined = text_of_content(*content, where + ".content");
    if (!joined) return std::unexpected(std::move(joined).error());
    text = std::move(*joined);
  }
  message["content"] = text;
  if (tool_calls) {
    if (!tool_calls->is_array()) return wrong_type(where + ".tool_calls", "an array", *tool_calls);
    JsonArray calls;
    for (size_t i = 0; i < tool_calls->get_array().size(); ++i) {
      auto call = normalise_tool_call(tool_calls->get_array()[i], fmt::format("{}.tool_calls[{}]", where, i));
      if (!call) return std::unexpected(std::move(call).error());
      calls.push_back(std::move(*call));
    }
    message["tool_calls"] = std::move(calls);
  }
  for (std::string_view name : {"name", "tool_call_id", "reasoning_content"}) {
    if (const Json* extra = find(given, name)) {
      if (!extra->is_string()) return wrong_type(fmt::format("{}.{}", where, name), "a string", *extra);
      message[name] = *extra;
    }
  }
  return message;
}

}  // namespace

ApiResult<JsonArray> normalise_messages(const JsonArray& messages) {
  if (messages.empty()) {
    return wrong("messages", "Invalid 'messages': empty array. Expected an array with minimum length 1.",
                 "empty_array");
  }
  if (messages.size() > limits::kMaxMessages) {
    return wrong("messages",
                 fmt::format("Invalid 'messages': {} messages, but at most {} are taken.", messages.size(),
                             limits::kMaxMessages),
                 "array_above_max_length");
  }
  JsonArray out;
  out.reserve(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    auto message = normalise_message(messages[i], fmt::format("messages[{}]", i));
    if (!message) return std::unexpected(std::move(message).error());
    out.push_back(std::move(*message));
  }
  return out;
}

ApiResult<JsonArray> check_tools(const JsonArray& tools) {
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    if (!tools[i].is_object()) return wrong_type(where, "an object", tools[i]);
    const Json* type = find(tools[i].get_object(), "type");
    if (!type || !type->is_string()) return missing(where + ".type");
    if (type->get_string() != "function") {
      return wrong(where + ".type",
                   fmt::format("Invalid value: '{}'. Only tools of type 'function' are supported.",
                               std::string_view(type->get_string())),
                   "unsupported_value");
    }
    const Json* function = find(tools[i].get_object(), "function");
    if (!function || !function->is_object()) return missing(where + ".function");
    const Json* name = find(function->get_object(), "name");
    if (!name || !name->is_string()) return missing(where + ".function.name");
  }
  return tools;
}

}  // namespace shoal::api::openai
