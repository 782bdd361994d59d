// Errors as values. Every function that can fail for a reason a user may cause or mend returns Result<T>;
// exceptions never cross a room's border. An Error names the thing and the number that is wrong (`message`)
// and what to do about it (`hint`, may be empty). Programming errors are SHOAL_ASSERTs (base/assert.h), not Errors.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace shoal {

enum class ErrorCode {
  invalid_argument,  // the caller's request is wrong: a flag, a field, a value out of range
  not_found,         // a file, model, node or instance that does not exist
  malformed,         // bytes from outside (file, peer, client) that break their format
  unsupported,       // well-formed, but this build cannot do it
  limit_exceeded,    // over a limit of base/limits.h or of the model (context length, queue)
  out_of_memory,     // does not fit in the memory given
  io,                // the operating system refused (disk full, permission, connection reset)
  unavailable,       // right now not to be had: loading, lost node, queue full; trying again may help
  timeout,
  cancelled,
  conflict,          // somebody else holds it: a port in use, a name taken, a newer epoch
  internal,          // a fault of ours that was contained
};

std::string_view to_string(ErrorCode code);
// The code named by `text`; `internal` for a name that a newer peer may have sent and we do not know.
ErrorCode error_code_from_string(std::string_view text);

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;  // one line, no full stop, names the thing and the number
  std::string hint;     // what to do, one line; may be empty

  // "message (hint)": what a terminal shows.
  std::string text() const;
};

template <class T = void>
using Result = std::expected<T, Error>;

[[nodiscard]] std::unexpected<Error> fail(ErrorCode code, std::string message, std::string hint = {});

#define SHOAL_CONCAT_INNER(a, b) a##b
#define SHOAL_CONCAT(a, b) SHOAL_CONCAT_INNER(a, b)

// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in parentheses.
// SHOAL_TRY(auto file, open(path)): evaluates, returns the Error from the enclosing function or binds the value.
#define SHOAL_TRY(declaration, expression) \
  SHOAL_TRY_INNER(SHOAL_CONCAT(shoal_result_, __LINE__), declaration, expression)
#define SHOAL_TRY_INNER(result, declaration, expression)                \
  auto result = (expression);                                           \
  if (!result.has_value()) return std::unexpected(std::move(result).error()); \
  declaration = *std::move(result)
// NOLINTEND(bugprone-macro-parentheses)

// SHOAL_TRY_VOID(write(x)): the same for Result<void>.
#define SHOAL_TRY_VOID(expression)                                                              \
  do {                                                                                          \
    if (auto shoal_result = (expression); !shoal_result.has_value())                            \
      return std::unexpected(std::move(shoal_result).error());                                  \
  } while (false)

}  // namespace shoal
