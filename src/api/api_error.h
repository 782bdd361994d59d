// What went wrong with a request, before a dialect puts it into its own words: an HTTP status, a message for
// people, and the field and code that programs look at.
#pragma once

#include <expected>
#include <optional>
#include <string>

#include "base/result.h"

namespace shoal::api {

struct ApiError {
  int status = 500;
  std::string message;
  std::string parameter;  // the field that is wrong; may be empty
  std::string code;       // "context_length_exceeded"; may be empty
  std::optional<uint32_t> retry_after_seconds = {};
};

template <class T>
using ApiResult = std::expected<T, ApiError>;

// The status and code for an Error of the rooms below.
ApiError from_error(const Error& error);

}  // namespace shoal::api
