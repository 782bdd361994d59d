// The one place where text/ meets the bridge's C conventions: statuses become Errors, strings that the caller
// must free become std::string. Private to this room.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "bridge/bridge.h"

namespace shoal::text {

inline shoal_view view_of(std::string_view text) {
  return {text.data(), text.size()};
}
inline std::string_view text_of(shoal_view view) {
  return {view.data, view.size};
}

// Runs `call(char** error)`; a status other than SHOAL_OK becomes an Error with the bridge's text.
template <class Call>
Result<> bridge_call(Call&& call) {
  char* text = nullptr;
  const shoal_status status = call(&text);
  const std::unique_ptr<char, decltype(&shoal_string_free)> owner(text, &shoal_string_free);
  if (status == SHOAL_OK) return {};
  std::string message = text == nullptr ? "the text bridge failed" : text;
  switch (status) {
    case SHOAL_INVALID_ARGUMENT:
    case SHOAL_REFUSED:
      return fail(ErrorCode::invalid_argument, std::move(message));
    case SHOAL_MALFORMED:
      return fail(ErrorCode::malformed, std::move(message));
    case SHOAL_LIMIT:
      return fail(ErrorCode::limit_exceeded, std::move(message));
    default:
      return fail(ErrorCode::internal, std::move(message));
  }
}

// The same for calls that return a text: `call(char** text, size_t* size, char** error)`.
template <class Call>
Result<std::string> bridge_text(Call&& call) {
  char* text = nullptr;
  size_t size = 0;
  SHOAL_TRY_VOID(bridge_call([&](char** error) { return call(&text, &size, error); }));
  const std::unique_ptr<char, decltype(&shoal_string_free)> owner(text, &shoal_string_free);
  if (text == nullptr) return fail(ErrorCode::out_of_memory, "no memory for a text");
  return std::string(text, size);
}

}  // namespace shoal::text
