// Cells of tables out of a node's JSON: members that are missing or of another type show as "-". Included
// only where tables are made.
#pragma once

#include <fmt/format.h>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/memory.h"
#include "cli/terminal.h"

namespace shoal::cli {

inline const Json* member(const Json& value, std::string_view name) {
  return value.is_object() ? find(value.get_object(), name) : nullptr;
}

inline const JsonArray& list(const Json& value, std::string_view name) {
  static const JsonArray kNone;
  const Json* found = member(value, name);
  return found && found->is_array() ? found->get_array() : kNone;
}

inline std::string text(const Json& value, std::string_view name) {
  const Json* found = member(value, name);
  if (!found) return "-";
  if (found->is_string()) return found->get_string().empty() ? "-" : printable(found->get_string());
  return to_text(*found);
}

inline std::optional<double> number(const Json& value, std::string_view name) {
  const Json* found = member(value, name);
  return found && found->is_number() ? std::optional(found->to_number<double>()) : std::nullopt;
}

inline std::string bytes(const Json& value, std::string_view name) {
  const auto count = number(value, name);
  return count && *count >= 0 ? format_bytes(static_cast<uint64_t>(*count)) : "-";
}

// With `decimals` digits; "-" when absent or 0, which means "not measured".
inline std::string decimal(const Json& value, std::string_view name, int decimals, double scale = 1) {
  const auto count = number(value, name);
  return count && *count > 0 ? fmt::format("{:.{}f}", *count * scale, decimals) : "-";
}

}  // namespace shoal::cli
