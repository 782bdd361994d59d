// Stop strings over streamed text. The matcher holds back the longest end of the text that may still become a
// stop string and passes on the rest, so that no client ever sees the beginning of a stop string. Where a
// match is found does not depend on how the text was cut into pieces: the stop string that is complete first
// wins, and of several that end there the longest. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoal::text {

class StopMatcher {
 public:
  // Empty strings are ignored; they keep their index.
  explicit StopMatcher(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {}

  struct Output {
    std::string text;            // to pass on; ends before the stop string
    std::optional<size_t> stop;  // index of the stop string that matched; nothing may be pushed after that
  };
  Output push(std::string_view text);
  // What was held back, when the text ends without a stop string.
  std::string flush();

 private:
  std::vector<std::string> stop_strings_;
  std::string held_;
};

}  // namespace shoal::text
