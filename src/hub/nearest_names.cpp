#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "hub/model_store.h"

namespace shoal::hub {
namespace {

std::string lower(std::string_view text) {
  std::string result(text.substr(0, 256));
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// Levenshtein's: how many single-character edits turn one into the other.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_names_hint(std::string_view wanted, const std::vector<std::string>& names) {
  if (names.empty()) return {};
  const std::string wanted_lower = lower(wanted);
  std::vector<std::pair<size_t, std::string>> near;
  for (const std::string& name : names) {
    const std::string name_lower = lower(name);
    const size_t distance = edit_distance(wanted_lower, name_lower);
    const bool contains = wanted_lower.size() >= 3 && name_lower.find(wanted_lower) != std::string::npos;
    if (contains || distance <= std::max<size_t>(2, wanted_lower.size() / 3))
      near.emplace_back(distance, name);
  }
  std::ranges::sort(near);
  std::vector<std::string> quoted;
  for (size_t i = 0; i < std::min<size_t>(3, near.size()); ++i)
    quoted.push_back(fmt::format("'{}'", near[i].second));
  if (!quoted.empty()) return fmt::format("did you mean {}?", fmt::join(quoted, " or "));
  for (size_t i = 0; i < std::min<size_t>(5, names.size()); ++i)
    quoted.push_back(fmt::format("'{}'", names[i]));
  return fmt::format("held here: {}{}", fmt::join(quoted, ", "), names.size() > 5 ? ", …" : "");
}

}  // namespace shoal::hub
