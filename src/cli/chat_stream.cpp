#include "cli/chat_stream.h"

namespace shoal::cli {

void ChatStream::feed(std::string_view bytes) {
  pending_ += bytes;
  size_t begin = 0;
  for (size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string_view line = std::string_view(pending_).substr(begin, end - begin);
    if (line.starts_with("data: ")) on_event(line.substr(6));
  }
  pending_.erase(0, begin);
}

void ChatStream::on_event(std::string_view data) {
  if (data.starts_with("[DONE]")) return;
  const auto event = parse_json_object(data, "an event of the answer");
  if (!event) {
    error_ = event.error();
    return;
  }
  if (const auto error = get_object(*event, "error"); error && *error) {
    const auto message = get_string(**error, "message");
    error_ = Error{ErrorCode::unavailable, message && *message ? **message : "the answer broke off", {}};
  }
  if (const auto usage = get_object(*event, "usage"); usage && *usage) {
    const auto tokens = get_integer(**usage, "completion_tokens", 0, INT64_MAX);
    if (tokens && *tokens) completion_tokens_ = static_cast<uint64_t>(**tokens);
  }
  const auto choices = get_array(*event, "choices");
  if (!choices || !*choices || (*choices)->empty() || !(**choices)[0].is_object()) return;
  const JsonObject& choice = (**choices)[0].get_object();
  if (const auto reason = get_string(choice, "finish_reason"); reason && *reason) finish_reason_ = **reason;
  const auto delta = get_object(choice, "delta");
  if (!delta || !*delta) return;
  if (const auto text = get_string(**delta, "content"); text && *text && !(*text)->empty()) {
    answer_ += **text;
    on_text_(**text);
  }
}

}  // namespace shoal::cli
