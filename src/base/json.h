// JSON for configs, facts and the API: boost::json behind bounds. `JsonObject` keeps insertion order.
// Parsing never throws and limits depth; field getters name the field in their Error.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace shoal {

using Json = boost::json::value;
using JsonObject = boost::json::object;
using JsonArray = boost::json::array;

// Strict JSON in UTF-8; `what` names the source in the Error ("config.json", "request body").
Result<Json> parse_json(std::string_view text, std::string_view what);
// The same, and the top must be an object.
Result<JsonObject> parse_json_object(std::string_view text, std::string_view what);

std::string to_text(const Json& value);
// Two-space indentation, for people.
std::string to_pretty_text(const Json& value);

// The member, or nullptr when absent or null (an explicit null means the default everywhere in shoal).
const Json* find(const JsonObject& object, std::string_view name);

// Optional members: nullopt when absent or null; an Error when of another type (or, for integers, outside
// [minimum, maximum]; a float with an integral value counts as an integer, as in published configs).
Result<std::optional<int64_t>> get_integer(const JsonObject& object, std::string_view name, int64_t minimum,
                                           int64_t maximum);
Result<std::optional<double>> get_number(const JsonObject& object, std::string_view name);
Result<std::optional<bool>> get_bool(const JsonObject& object, std::string_view name);
Result<std::optional<std::string>> get_string(const JsonObject& object, std::string_view name);

// Required members: as above, and absence is an Error.
Result<int64_t> require_integer(const JsonObject& object, std::string_view name, int64_t minimum, int64_t maximum);
Result<double> require_number(const JsonObject& object, std::string_view name);
Result<std::string> require_string(const JsonObject& object, std::string_view name);

// A member that must be an object or array when present; nullptr when absent or null.
Result<const JsonObject*> get_object(const JsonObject& object, std::string_view name);
Result<const JsonArray*> get_array(const JsonObject& object, std::string_view name);

}  // namespace shoal
