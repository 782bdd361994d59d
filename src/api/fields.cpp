#include "api/fields.h"

#include <cmath>
#include <fmt/format.h>

namespace shoal::api {

std::string_view kind_name(const Json& value) {
  switch (value.kind()) {
    case boost::json::kind::null:
      return "null";
    case boost::json::kind::bool_:
      return "a boolean";
    case boost::json::kind::int64:
    case boost::json::kind::uint64:
      return "an integer";
    case boost::json::kind::double_:
      return "a decimal";
    case boost::json::kind::string:
      return "a string";
    case boost::json::kind::array:
      return "an array";
    case boost::json::kind::object:
      return "an object";
  }
  return "a value";
}

const Json* Fields::take(std::string_view name) {
  known_.emplace(name);
  return find(object_, name);
}

void Fields::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void Fields::fail(std::string_view name, std::string message, std::string code, int status) {
  fail({status, std::move(message), full_name(name), std::move(code)});
}

void Fields::wrong_type(std::string_view name, std::string_view expected, const Json& value) {
  fail(name,
       fmt::format("Invalid type for '{}': expected {}, but got {} instead.", full_name(name), expected,
                   kind_name(value)),
       "invalid_type");
}

std::optional<double> Fields::number(std::string_view name, double minimum, double maximum) {
  const Json* value = take(name);
  if (!value) return {};
  if (!value->is_number()) {
    wrong_type(name, "a number", *value);
    return {};
  }
  const double number = value->to_number<double>();
  if (number >= minimum && number <= maximum) return number;
  const bool above = number > maximum;
  fail(name,
       fmt::format("Invalid '{}': expected a value {} {}, but got {} instead.", full_name(name),
                   above ? "<=" : ">=", above ? maximum : minimum, to_text(*value)),
       above ? "decimal_above_max_value" : "decimal_below_min_value");
  return {};
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t minimum, int64_t maximum) {
  const Json* value = take(name);
  if (!value) return {};
  const bool whole = value->is_int64() || value->is_uint64() ||
                     (value->is_double() && std::floor(value->get_double()) == value->get_double());
  if (!whole) {
    wrong_type(name, "an integer", *value);
    return {};
  }
  if (auto integer = get_integer(object_, name, minimum, maximum)) return *integer;
  const bool above =
      value->to_number<double>() > 0 && value->to_number<double>() > static_cast<double>(minimum);
  fail(name,
       fmt::format("Invalid '{}': expected a value {} {}, but got {} instead.", full_name(name),
                   above ? "<=" : ">=", above ? maximum : minimum, to_text(*value)),
       above ? "integer_above_max_value" : "integer_below_min_value");
  return {};
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = take(name);
  if (!value) return {};
  if (value->is_bool()) return value->get_bool();
  wrong_type(name, "a boolean", *value);
  return {};
}

std::optional<std::string> Fields::string(std::string_view name) {
  const Json* value = take(name);
  if (!value) return {};
  if (value->is_string()) return std::string(value->get_string());
  wrong_type(name, "a string", *value);
  return {};
}

const JsonArray* Fields::array(std::string_view name) {
  const Json* value = take(name);
  if (!value || value->is_array()) return value ? &value->get_array() : nullptr;
  wrong_type(name, "an array", *value);
  return nullptr;
}

const JsonObject* Fields::object(std::string_view name) {
  const Json* value = take(name);
  if (!value || value->is_object()) return value ? &value->get_object() : nullptr;
  wrong_type(name, "an object", *value);
  return nullptr;
}

const Json* Fields::any(std::string_view name) {
  return take(name);
}

void Fields::require(std::string_view name) {
  if (!take(name)) {
    fail(name, fmt::format("Missing required parameter: '{}'.", full_name(name)),
         "missing_required_parameter");
  }
}

void Fields::ignore(std::initializer_list<std::string_view> names) {
  for (std::string_view name : names) known_.emplace(name);
}

void Fields::unsupported(std::string_view name, std::string_view why) {
  if (take(name))
    fail(name, fmt::format("Unsupported parameter: '{}' {}.", full_name(name), why), "unsupported_parameter");
}

std::optional<ApiError> Fields::error() const {
  if (error_) return error_;
  for (const auto& member : object_) {
    const std::string_view name(member.key().data(), member.key().size());
    if (!member.value().is_null() && !known_.contains(name)) {
      return ApiError{400, fmt::format("Unknown parameter: '{}'.", full_name(name)), full_name(name),
                      "unknown_parameter"};
    }
  }
  return {};
}

}  // namespace shoal::api
