#include "base/cores.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace shoal {
namespace {

constexpr unsigned kLargestNumber = 8191;

// Takes a number off the front of `text`.
template <class Number>
std::optional<Number> take_number(std::string_view& text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

}  // namespace

std::optional<std::vector<unsigned>> parse_number_list(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  std::vector<unsigned> numbers;
  while (true) {
    const auto first = take_number<unsigned>(text);
    if (!first) return std::nullopt;
    auto last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      last = take_number<unsigned>(text);
    }
    if (!last || *last < *first || *last > kLargestNumber) return std::nullopt;
    for (unsigned number = *first; number <= *last; ++number) numbers.push_back(number);
    if (text.empty()) break;
    if (!text.starts_with(',')) return std::nullopt;
    text.remove_prefix(1);
  }
  std::ranges::sort(numbers);
  numbers.erase(std::ranges::unique(numbers).begin(), numbers.end());
  return numbers;
}

std::optional<unsigned> parse_core_quota(std::string_view text) {
  const auto quota = take_number<uint64_t>(text);
  if (!quota || !text.starts_with(' ')) return std::nullopt;
  text.remove_prefix(1);
  const auto period = take_number<uint64_t>(text);
  if (!period || *period == 0 || *quota > uint64_t{kLargestNumber} * *period) return std::nullopt;
  return static_cast<unsigned>(std::max<uint64_t>(1, (*quota + *period - 1) / *period));
}

}  // namespace shoal
