#include "text/special_spelling.h"

#include <algorithm>

namespace shoal::text {

namespace {

size_t first_character_bytes(std::string_view text) {
  size_t bytes = 1;
  while (bytes < text.size() && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) ++bytes;
  return bytes;
}

std::string_view without_trailing_spaces(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n\f\v");
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

}  // namespace

SpecialSpelling::SpecialSpelling(const std::vector<AddedToken>& added_tokens) {
  for (const AddedToken& token : added_tokens) {
    if (!token.control || token.content.empty()) continue;
    tokens_.insert(token.content);
    lengths_.push_back(token.content.size());
    first_bytes_[static_cast<unsigned char>(token.content[0])] = true;
  }
  sorted_tokens_.assign(tokens_.begin(), tokens_.end());
  std::ranges::sort(sorted_tokens_);
  std::ranges::sort(lengths_);
  const auto repeated = std::ranges::unique(lengths_);
  lengths_.erase(repeated.begin(), repeated.end());
}

bool SpecialSpelling::spelled_at(std::string_view text, size_t offset) const {
  return std::ranges::any_of(lengths_, [&](size_t length) {
    return length <= text.size() - offset && tokens_.contains(text.substr(offset, length));
  });
}

bool SpecialSpelling::begins_at(std::string_view tail) const {
  const auto next = std::ranges::lower_bound(sorted_tokens_, tail);
  return next != sorted_tokens_.end() && next->starts_with(tail);
}

std::vector<size_t> SpecialSpelling::breaks(std::string_view text) const {
  std::vector<size_t> offsets;
  if (lengths_.empty()) return offsets;
  const size_t end = without_trailing_spaces(text).size();
  const size_t longest = lengths_.back();
  for (size_t offset = 0; offset < text.size(); ++offset) {
    if (!first_bytes_[static_cast<unsigned char>(text[offset])]) continue;
    const bool near_end = offset < end && end - offset < longest;
    if (spelled_at(text, offset) || (near_end && begins_at(text.substr(offset, end - offset)))) {
      offsets.push_back(offset + first_character_bytes(text.substr(offset)));
    }
  }
  return offsets;
}

std::string SpecialSpelling::broken(std::string_view text, std::string_view sentinel, size_t& count) const {
  std::string result;
  size_t done = 0;
  for (size_t offset : breaks(text)) {
    result.append(text.substr(done, offset - done)).append(sentinel);
    done = offset;
    ++count;
  }
  return result.append(text.substr(done));
}

Json SpecialSpelling::broken(const Json& value, std::string_view sentinel, size_t& count) const {
  if (const auto* text = value.if_string()) return Json(broken(std::string_view(*text), sentinel, count));
  if (const JsonArray* array = value.if_array()) {
    JsonArray items;
    items.reserve(array->size());
    for (const Json& item : *array) items.push_back(broken(item, sentinel, count));
    return items;
  }
  if (const JsonObject* object = value.if_object()) {
    JsonObject members;
    members.reserve(object->size());
    for (const auto& [name, member] : *object) {
      members[broken(std::string_view(name), sentinel, count)] = broken(member, sentinel, count);
    }
    return members;
  }
  return value;
}

Unbroken without_sentinels(std::string_view rendered, std::string_view sentinel, std::string_view escaped) {
  Unbroken result;
  result.text.reserve(rendered.size());
  while (true) {
    const size_t plain_at = rendered.find(sentinel);
    const size_t escaped_at = rendered.find(escaped);
    const size_t at = std::min(plain_at, escaped_at);
    result.text.append(rendered.substr(0, at));
    if (at == std::string_view::npos) return result;
    result.cuts.push_back(result.text.size());
    rendered.remove_prefix(at + (plain_at < escaped_at ? sentinel.size() : escaped.size()));
  }
}

}  // namespace shoal::text
