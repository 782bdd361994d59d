// A config.json (or an object inside it) being read. It remembers which fields were asked for: at the end,
// refuse_unused() refuses every field that is known to change the maths and that nobody asked for, unless it
// has the value that changes nothing. So an architecture page names what it supports, and the rest cannot be
// ignored.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace shoal::model {

class Fields {
 public:
  // `path`: how the object is called in errors, "config.json" or "rope_scaling". The object must outlive
  // this.
  Fields(const JsonObject& object, std::string_view architecture, std::string_view path = "");

  // The member, marked as read; nullptr when absent or null.
  const Json* get(std::string_view name);
  bool contains(std::string_view name) const { return object_->contains(name); }  // null counts
  bool empty() const { return object_->empty(); }

  Result<std::optional<uint32_t>> get_count(std::string_view name, uint64_t maximum);  // from 1
  Result<uint32_t> require_count(std::string_view name, uint64_t maximum);
  Result<uint32_t> get_whole(std::string_view name, uint64_t maximum, uint32_t absent);  // from 0
  Result<std::optional<double>> get_positive(std::string_view name);                     // finite, over 0
  Result<double> require_positive(std::string_view name);
  Result<double> get_number(std::string_view name, double absent);  // finite, from 0
  Result<bool> get_flag(std::string_view name, bool absent);
  Result<std::optional<std::string>> get_text(std::string_view name);
  Result<std::vector<std::string>> get_texts(std::string_view name);  // empty when absent
  Result<std::vector<double>> get_numbers(std::string_view name);     // finite; empty when absent
  Result<std::vector<uint32_t>> get_wholes(std::string_view name, uint64_t maximum);  // empty when absent
  Result<std::optional<Fields>> get_object(std::string_view name);

  // The field must be absent, null or say this.
  Result<> expect_text(std::string_view name, std::string_view only);
  Result<> expect_flag(std::string_view name, bool only);

  Result<> refuse_unused() const;

  std::unexpected<Error> missing(std::string_view name) const;
  std::unexpected<Error> not_supported(std::string_view name) const;  // names the value
  std::unexpected<Error> wrong_value(std::string_view name, std::string_view expected) const;

  const std::string& architecture() const { return architecture_; }

 private:
  std::string shown_name(std::string_view name) const;

  const JsonObject* object_;
  std::string architecture_;
  std::string path_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace shoal::model
