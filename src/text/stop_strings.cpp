#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace shoal::text {

namespace {

struct Match {
  size_t end;
  size_t start;
  size_t index;
};

std::optional<Match> first_match(std::string_view text, const std::vector<std::string>& stop_strings) {
  std::optional<Match> best;
  for (size_t index = 0; index < stop_strings.size(); ++index) {
    const std::string& stop = stop_strings[index];
    const size_t start = stop.empty() ? std::string_view::npos : text.find(stop);
    if (start == std::string_view::npos) continue;
    const Match match{.end = start + stop.size(), .start = start, .index = index};
    if (!best.has_value() || std::pair(match.end, match.start) < std::pair(best->end, best->start))
      best = match;
  }
  return best;
}

// Bytes at the end of `text` that begin a stop string.
size_t open_end(std::string_view text, const std::vector<std::string>& stop_strings) {
  size_t longest = 0;
  for (const std::string& stop : stop_strings) {
    if (stop.empty()) continue;
    for (size_t size = std::min(stop.size() - 1, text.size()); size > longest; --size) {
      if (text.ends_with(std::string_view(stop).substr(0, size))) longest = size;
    }
  }
  return longest;
}

}  // namespace

StopMatcher::Output StopMatcher::push(std::string_view text) {
  held_.append(text);
  if (const std::optional<Match> match = first_match(held_, stop_strings_)) {
    Output output{.text = held_.substr(0, match->start), .stop = match->index};
    held_.clear();
    return output;
  }
  const size_t kept = open_end(held_, stop_strings_);
  SHOAL_ASSERT(kept <= held_.size());
  Output output{.text = held_.substr(0, held_.size() - kept), .stop = std::nullopt};
  held_.erase(0, held_.size() - kept);
  return output;
}

std::string StopMatcher::flush() {
  return std::exchange(held_, {});
}

}  // namespace shoal::text
