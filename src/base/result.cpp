#include "base/result.h"

#include <array>

namespace shoal {
namespace {
constexpr std::array<std::string_view, 12> kNames = {
    "invalid_argument", "not_found",   "malformed", "unsupported", "limit_exceeded", "out_of_memory",
    "io",               "unavailable", "timeout",   "cancelled",   "conflict",       "internal"};
static_assert(kNames.size() == static_cast<size_t>(ErrorCode::internal) + 1);
}  // namespace

std::string_view to_string(ErrorCode code) { return kNames[static_cast<size_t>(code)]; }

ErrorCode error_code_from_string(std::string_view text) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == text) return static_cast<ErrorCode>(i);
  }
  return ErrorCode::internal;
}

std::string Error::text() const { return hint.empty() ? message : message + " (" + hint + ")"; }

std::unexpected<Error> fail(ErrorCode code, std::string message, std::string hint) {
  return std::unexpected(Error{code, std::move(message), std::move(hint)});
}

}  // namespace shoal
