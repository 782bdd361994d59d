#include "base/json.h"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/src.hpp>
#include <cmath>

#include "base/limits.h"

namespace shoal {
namespace {

std::unexpected<Error> wrong_type(std::string_view name, std::string_view expected, const Json& value) {
  return fail(ErrorCode::invalid_argument,
              fmt::format("'{}' must be {}, not {}", name, expected, std::string_view(to_string(value.kind()))));
}

template <class T>
Result<T> required(Result<std::optional<T>> value, std::string_view name) {
  if (!value) return std::unexpected(std::move(value).error());
  if (!*value) return fail(ErrorCode::invalid_argument, fmt::format("'{}' is missing", name));
  return **std::move(value);
}

std::optional<int64_t> as_integer(const Json& value) {
  if (value.is_int64()) return value.get_int64();
  if (value.is_uint64()) {
    if (value.get_uint64() > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(value.get_uint64());
  }
  if (!value.is_double()) return std::nullopt;
  double number = value.get_double();
  if (!std::isfinite(number) || std::floor(number) != number || std::fabs(number) > 9.0e15) return std::nullopt;
  return static_cast<int64_t>(number);
}

void append_pretty(const Json& value, size_t indent, std::string& out) {
  auto new_line = [&](size_t depth) { out.append("\n").append(depth * 2, ' '); };
  if (const auto* object = value.if_object(); object && !object->empty()) {
    out += '{';
    bool first = true;
    for (const auto& member : *object) {
      if (!std::exchange(first, false)) out += ',';
      new_line(indent + 1);
      out += boost::json::serialize(boost::json::string(member.key()));
      out += ": ";
      append_pretty(member.value(), indent + 1, out);
    }
    new_line(indent);
    out += '}';
  } else if (const auto* array = value.if_array(); array && !array->empty()) {
    out += '[';
    bool first = true;
    for (const auto& element : *array) {
      if (!std::exchange(first, false)) out += ',';
      new_line(indent + 1);
      append_pretty(element, indent + 1, out);
    }
    new_line(indent);
    out += ']';
  } else {
    out += boost::json::serialize(value);
  }
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  boost::json::parse_options options;
  options.max_depth = limits::kMaxJsonDepth;
  boost::system::error_code error;
  try {
    Json value = boost::json::parse({text.data(), text.size()}, error, {}, options);
    if (!error) return value;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::out_of_memory, fmt::format("{} is too large to parse ({} bytes)", what, text.size()));
  }
  return fail(ErrorCode::malformed, fmt::format("{} is not valid JSON: {}", what, error.message()));
}

Result<JsonObject> parse_json_object(std::string_view text, std::string_view what) {
  SHOAL_TRY(Json value, parse_json(text, what));
  if (!value.is_object()) {
    return fail(ErrorCode::malformed, fmt::format("{} must be a JSON object, not {}", what,
                                                  std::string_view(to_string(value.kind()))));
  }
  return std::move(value.get_object());
}

std::string to_text(const Json& value) { return boost::json::serialize(value); }

std::string to_pretty_text(const Json& value) {
  std::string out;
  append_pretty(value, 0, out);
  return out;
}

const Json* find(const JsonObject& object, std::string_view name) {
  const Json* value = object.if_contains({name.data(), name.size()});
  return value && !value->is_null() ? value : nullptr;
}

Result<std::optional<int64_t>> get_integer(const JsonObject& object, std::string_view name, int64_t minimum,
                                           int64_t maximum) {
  const Json* value = find(object, name);
  if (!value) return std::nullopt;
  if (!value->is_number()) return wrong_type(name, "an integer", *value);
  auto integer = as_integer(*value);
  if (!integer || *integer < minimum || *integer > maximum) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("'{}' is {}, but must be an integer from {} to {}", name, to_text(*value), minimum, maximum));
  }
  return integer;
}

Result<std::optional<double>> get_number(const JsonObject& object, std::string_view name) {
  const Json* value = find(object, name);
  if (!value) return std::nullopt;
  if (!value->is_number()) return wrong_type(name, "a number", *value);
  return value->to_number<double>();
}

Result<std::optional<bool>> get_bool(const JsonObject& object, std::string_view name) {
  const Json* value = find(object, name);
  if (!value) return std::nullopt;
  if (!value->is_bool()) return wrong_type(name, "true or false", *value);
  return value->get_bool();
}

Result<std::optional<std::string>> get_string(const JsonObject& object, std::string_view name) {
  const Json* value = find(object, name);
  if (!value) return std::nullopt;
  if (!value->is_string()) return wrong_type(name, "a string", *value);
  return std::string(value->get_string());
}

Result<int64_t> require_integer(const JsonObject& object, std::string_view name, int64_t minimum, int64_t maximum) {
  return required(get_integer(object, name, minimum, maximum), name);
}
Result<double> require_number(const JsonObject& object, std::string_view name) {
  return required(get_number(object, name), name);
}
Result<std::string> require_string(const JsonObject& object, std::string_view name) {
  return required(get_string(object, name), name);
}

Result<const JsonObject*> get_object(const JsonObject& object, std::string_view name) {
  const Json* value = find(object, name);
  if (!value) return nullptr;
  if (!value->is_object()) return wrong_type(name, "an object", *value);
  return &value->get_object();
}

Result<const JsonArray*> get_array(const JsonObject& object, std::string_view name) {
  const Json* value = find(object, name);
  if (!value) return nullptr;
  if (!value->is_array()) return wrong_type(name, "an array", *value);
  return &value->get_array();
}

}  // namespace shoal
