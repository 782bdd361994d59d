// Reads the members of a request's JSON object, one after the other, and keeps the first thing that is wrong,
// in words that name the parameter. A member that nobody asked for is wrong too. An explicit null is as good
// as absent.
//
//   Fields fields(body);
//   request.temperature = fields.number("temperature", 0, 2).value_or(1);
//   fields.ignore({"user", "metadata"});
//   if (auto error = fields.error()) return std::unexpected(*error);
#pragma once

#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "api/api_error.h"
#include "base/json.h"

namespace shoal::api {

class Fields {
 public:
  // `prefix` names where the object stands: "stream_options." makes messages speak of
  // stream_options.include_usage.
  explicit Fields(const JsonObject& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  // Absent (or null) members are nullopt or nullptr; so are wrong ones, which error() then tells.
  std::optional<double> number(std::string_view name, double minimum, double maximum);
  std::optional<int64_t> integer(std::string_view name, int64_t minimum, int64_t maximum);
  std::optional<bool> boolean(std::string_view name);
  std::optional<std::string> string(std::string_view name);
  const JsonArray* array(std::string_view name);
  const JsonObject* object(std::string_view name);
  const Json* any(std::string_view name);

  void require(std::string_view name);
  void ignore(std::initializer_list<std::string_view> names);
  // Present means refused, with the reason.
  void unsupported(std::string_view name, std::string_view why);
  void fail(std::string_view name, std::string message, std::string code, int status = 400);
  void fail(ApiError error);

  // The first error; when there was none, the first member that no call above has asked for.
  std::optional<ApiError> error() const;

 private:
  const Json* take(std::string_view name);
  void wrong_type(std::string_view name, std::string_view expected, const Json& value);
  std::string full_name(std::string_view name) const { return prefix_ + std::string(name); }

  const JsonObject& object_;
  std::string prefix_;
  std::set<std::string, std::less<>> known_;
  std::optional<ApiError> error_;
};

// "a string", "an array", …: how messages call a value's kind.
std::string_view kind_name(const Json& value);

}  // namespace shoal::api
