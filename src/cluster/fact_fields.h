// The fields of facts, read as hostile: every text, list and number within its bounds, or an Error that names
// it. Private to this room's codecs (facts.cpp, measured_facts.cpp).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fmt/format.h>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "cluster/facts.h"

namespace shoal::cluster {

inline constexpr size_t kMaxNameBytes = 512;     // names, digests, versions, addresses
inline constexpr int64_t kMaxBytes = INT64_MAX;  // JSON integers are signed here

inline Json number(uint64_t value) {
  return static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX));
}

inline Result<std::string> text(const JsonObject& object, std::string_view name,
                                size_t limit = kMaxNameBytes) {
  SHOAL_TRY(auto value, get_string(object, name));
  if (value && value->size() > limit) {
    return fail(ErrorCode::limit_exceeded,
                fmt::format("'{}' has {} bytes, over {}", name, value->size(), limit));
  }
  return std::move(value).value_or("");
}

inline Result<std::string> id(const JsonObject& object, std::string_view name) {
  SHOAL_TRY(std::string value, require_string(object, name));
  if (!is_id(value))
    return fail(ErrorCode::malformed, fmt::format("'{}' is not 16 hexadecimal digits", name));
  return value;
}

template <class T>
Result<T> integer(const JsonObject& object, std::string_view name, int64_t maximum = UINT32_MAX) {
  SHOAL_TRY(auto value, get_integer(object, name, 0, maximum));
  return static_cast<T>(value.value_or(0));
}

// A finite number of at least 0.
inline Result<double> measure(const JsonObject& object, std::string_view name) {
  SHOAL_TRY(auto value, get_number(object, name));
  double measured = value.value_or(0);
  if (!std::isfinite(measured) || measured < 0) {
    return fail(ErrorCode::malformed, fmt::format("'{}' is {}, not a measure", name, measured));
  }
  return measured;
}

template <class T>
Result<T> state(const JsonObject& object, std::string_view name, std::span<const std::string_view> names) {
  SHOAL_TRY(std::string value, require_string(object, name));
  auto found = std::find(names.begin(), names.end(), value);
  if (found == names.end()) {
    return fail(ErrorCode::malformed, fmt::format("'{}' is '{:.40}', which is unknown", name, value));
  }
  return static_cast<T>(found - names.begin());
}

// Every element through `read`, at most `limit` of them.
template <class T, class Read>
Result<std::vector<T>> list(const JsonObject& object, std::string_view name, size_t limit, Read read) {
  SHOAL_TRY(const JsonArray* array, get_array(object, name));
  std::vector<T> values;
  if (!array) return values;
  if (array->size() > limit) {
    return fail(ErrorCode::limit_exceeded,
                fmt::format("'{}' has {} entries, over {}", name, array->size(), limit));
  }
  for (const Json& element : *array) {
    SHOAL_TRY(T value, read(element));
    values.push_back(std::move(value));
  }
  return values;
}

template <class T, class Read>
auto of_object(std::string_view name, Read read) {
  return [name, read](const Json& element) -> Result<T> {
    if (!element.is_object())
      return fail(ErrorCode::malformed, fmt::format("'{}' holds what is no object", name));
    return read(element.get_object());
  };
}

}  // namespace shoal::cluster
