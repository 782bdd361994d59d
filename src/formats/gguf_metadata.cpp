// The typed getters of GgufMetadata.
#include <fmt/format.h>
#include <type_traits>

#include "formats/gguf.h"
#include "formats/layout.h"

namespace shoal::formats {
namespace {

// A value as an Error shows it.
std::string describe(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> std::string {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, std::string>) {
          return quote(held);
        } else if constexpr (std::is_arithmetic_v<Held>) {
          return fmt::format("{}", held);
        } else {
          return fmt::format("an array of {}", held.size());
        }
      },
      value);
}

std::unexpected<Error> wrong_value(std::string_view key, const GgufValue& value, std::string_view expected) {
  return fail(ErrorCode::malformed,
              fmt::format("'{}' is {}, but must be {}", key, describe(value), expected));
}

template <class T>
Result<T> required(Result<std::optional<T>> value, std::string_view key) {
  if (!value) return std::unexpected(std::move(value).error());
  std::optional<T>& stated = *value;
  if (!stated) return fail(ErrorCode::malformed, fmt::format("'{}' is missing", key));
  return *std::move(stated);
}

std::optional<int64_t> as_integer(const GgufValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  const auto* natural = std::get_if<uint64_t>(&value);
  if (!natural || *natural > INT64_MAX) return std::nullopt;
  return static_cast<int64_t>(*natural);
}

}  // namespace

const GgufValue* GgufMetadata::find(std::string_view key) const {
  auto place = values_.find(key);
  return place == values_.end() ? nullptr : &place->second;
}

Result<std::optional<int64_t>> GgufMetadata::get_integer(std::string_view key, int64_t minimum,
                                                         int64_t maximum) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto integer = as_integer(*value);
  if (!integer || *integer < minimum || *integer > maximum) {
    return wrong_value(key, *value, fmt::format("an integer from {} to {}", minimum, maximum));
  }
  return integer;
}

Result<int64_t> GgufMetadata::require_integer(std::string_view key, int64_t minimum, int64_t maximum) const {
  return required(get_integer(key, minimum, maximum), key);
}

Result<std::optional<double>> GgufMetadata::get_number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto integer = as_integer(*value)) return static_cast<double>(*integer);
  return wrong_value(key, *value, "a number");
}

Result<std::optional<bool>> GgufMetadata::get_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  return wrong_value(key, *value, "true or false");
}

Result<std::optional<std::string>> GgufMetadata::get_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* text = std::get_if<std::string>(value)) return *text;
  return wrong_value(key, *value, "a string");
}

Result<std::string> GgufMetadata::require_string(std::string_view key) const {
  return required(get_string(key), key);
}

const std::vector<std::string>* GgufMetadata::find_strings(std::string_view key) const {
  return std::get_if<std::vector<std::string>>(find(key));
}

const std::vector<double>* GgufMetadata::find_numbers(std::string_view key) const {
  return std::get_if<std::vector<double>>(find(key));
}

std::vector<int64_t> GgufMetadata::integers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return {};
  if (const auto* signed_values = std::get_if<std::vector<int64_t>>(value)) return *signed_values;
  const auto* unsigned_values = std::get_if<std::vector<uint64_t>>(value);
  if (!unsigned_values) return {};
  std::vector<int64_t> result;
  result.reserve(unsigned_values->size());
  for (uint64_t element : *unsigned_values) {
    if (element > INT64_MAX) return {};
    result.push_back(static_cast<int64_t>(element));
  }
  return result;
}

}  // namespace shoal::formats
