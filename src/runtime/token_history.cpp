#include <algorithm>

#include "runtime/sampling.h"

namespace shoal::runtime {

void TokenHistory::add_prompt(std::span<const int32_t> tokens) {
  std::vector<int32_t> sorted(tokens.begin(), tokens.end());
  std::ranges::sort(sorted);
  std::vector<Count> merged;
  merged.reserve(counts_.size());
  size_t known = 0;
  for (size_t first = 0; first < sorted.size();) {
    const int32_t token = sorted[first];
    size_t end = first;
    while (end < sorted.size() && sorted[end] == token) ++end;
    while (known < counts_.size() && counts_[known].token < token) merged.push_back(counts_[known++]);
    Count count{token, 0, 0};
    if (known < counts_.size() && counts_[known].token == token) count = counts_[known++];
    count.in_prompt += static_cast<uint32_t>(end - first);
    merged.push_back(count);
    first = end;
  }
  merged.insert(merged.end(), counts_.begin() + static_cast<std::ptrdiff_t>(known), counts_.end());
  counts_ = std::move(merged);
}

void TokenHistory::add_answer(int32_t token) {
  entry(token).in_answer += 1;
}

TokenHistory::Count& TokenHistory::entry(int32_t token) {
  auto place = std::ranges::lower_bound(counts_, token, {}, &Count::token);
  if (place == counts_.end() || place->token != token) place = counts_.insert(place, Count{token, 0, 0});
  return *place;
}

}  // namespace shoal::runtime
