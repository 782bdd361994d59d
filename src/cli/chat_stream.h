// Reads a streamed chat completion: server-sent events in, text out.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace shoal::cli {

class ChatStream {
 public:
  using TextCallback = std::function<void(std::string_view text)>;
  explicit ChatStream(TextCallback on_text) : on_text_(std::move(on_text)) {}

  // The next bytes of the stream, cut anywhere.
  void feed(std::string_view bytes);

  const std::string& answer() const { return answer_; }
  const std::optional<Error>& error() const { return error_; }         // that the stream told
  const std::string& finish_reason() const { return finish_reason_; }  // empty until it came
  uint64_t completion_tokens() const { return completion_tokens_; }

 private:
  void on_event(std::string_view data);

  TextCallback on_text_;
  std::string pending_;  // of an event that is not whole yet
  std::string answer_;
  std::optional<Error> error_;
  std::string finish_reason_;
  uint64_t completion_tokens_ = 0;
};

}  // namespace shoal::cli
