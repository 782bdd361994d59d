// Finds control tokens that are spelled out in text from outside, and breaks them with a sentinel that can be
// taken out again after rendering (chat_encoder.h tells why). Private to this room.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"

namespace shoal::text {

class SpecialSpelling {
 public:
  explicit SpecialSpelling(const std::vector<AddedToken>& added_tokens);

  // Offsets in `text` that lie behind the first character of a control token, or of a beginning of one that
  // reaches to the end of the text, spaces aside. Rising.
  std::vector<size_t> breaks(std::string_view text) const;
  // Every string in `value`, names of members too, with `sentinel` at its breaks. Counts the sentinels.
  Json broken(const Json& value, std::string_view sentinel, size_t& count) const;

 private:
  std::string broken(std::string_view text, std::string_view sentinel, size_t& count) const;
  bool spelled_at(std::string_view text, size_t offset) const;
  bool begins_at(std::string_view tail) const;

  std::unordered_set<std::string_view> tokens_;  // views into the list given to the constructor
  std::vector<std::string_view> sorted_tokens_;  // the same, to find what begins a token
  std::vector<size_t> lengths_;                  // the distinct lengths of tokens_, rising
  std::array<bool, 256> first_bytes_{};
};

struct Unbroken {
  std::string text;
  std::vector<size_t> cuts;  // offsets in `text` where a sentinel was
};
// Takes the sentinels out, also where a template wrote them as the JSON escape `escaped`.
Unbroken without_sentinels(std::string_view rendered, std::string_view sentinel, std::string_view escaped);

}  // namespace shoal::text
