#include "api/api_error.h"

namespace shoal::api {
namespace {

constexpr uint32_t kRetrySeconds = 1;

ApiError limit_exceeded(const Error& error) {
  // Clients recognise an overflow of the context by this code and by the words "maximum context length".
  if (error.message.contains("context")) return {400, error.text(), "messages", "context_length_exceeded"};
  return {429, error.text(), {}, "rate_limit_exceeded", kRetrySeconds};
}

ApiError unavailable(const Error& error) {
  if (error.message.contains("queue full"))
    return {429, error.text(), {}, "rate_limit_exceeded", kRetrySeconds};
  return {503, error.text(), {}, "unavailable", kRetrySeconds};
}

}  // namespace

ApiError from_error(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::malformed:
      return {400, error.text(), {}, "invalid_value"};
    case ErrorCode::unsupported:
      return {400, error.text(), {}, "unsupported_value"};
    case ErrorCode::not_found:
      return {404, error.text(), {}, "not_found"};
    case ErrorCode::limit_exceeded:
      return limit_exceeded(error);
    case ErrorCode::unavailable:
      return unavailable(error);
    case ErrorCode::cancelled:
      return {503, error.text(), {}, "cancelled", kRetrySeconds};
    case ErrorCode::out_of_memory:
      return {507, error.text(), {}, "out_of_memory"};
    case ErrorCode::timeout:
      return {504, error.text(), {}, "timeout"};
    case ErrorCode::conflict:
      return {409, error.text(), {}, "conflict"};
    case ErrorCode::io:
    case ErrorCode::internal:
      return {500, error.text(), {}, "internal_error"};
  }
  return {500, error.text(), {}, "internal_error"};
}

}  // namespace shoal::api
