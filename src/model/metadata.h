// GGUF metadata under one architecture's prefix being read. Like Fields it remembers what was asked for: at
// the end, refuse_unused() refuses every key under the prefix that nobody asked for, unless it says 0, false,
// 1 where 1 changes nothing, or is known to be idle.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::model {

class Metadata {
 public:
  // `checkpoint` is a GGUF and outlives this.
  Metadata(const formats::Checkpoint& checkpoint, std::string_view architecture);

  const formats::Checkpoint& checkpoint() const { return *checkpoint_; }
  const std::string& architecture() const { return architecture_; }
  std::string name(std::string_view key) const;  // "<architecture>.<key>"

  Result<std::optional<uint32_t>> get_count(std::string_view key, uint64_t maximum);  // from 1
  Result<uint32_t> require_count(std::string_view key, uint64_t maximum);
  Result<uint32_t> get_whole(std::string_view key, uint64_t maximum, uint32_t absent);  // from 0
  Result<std::optional<double>> get_positive(std::string_view key);
  Result<double> require_positive(std::string_view key);
  Result<double> get_number(std::string_view key, double absent);  // finite, from 0
  Result<bool> get_flag(std::string_view key, bool absent);
  Result<std::vector<bool>> get_flags(std::string_view key);  // an array; empty when absent
  Result<std::optional<std::string>> get_text(std::string_view key);
  Result<std::vector<uint32_t>> get_wholes(std::string_view key,
                                           uint64_t maximum);  // an array; empty when absent
  // One value for each of `layers` layers, from an array or from a single number; `absent` when there is
  // neither.
  Result<std::vector<uint32_t>> get_per_layer(std::string_view key, uint64_t maximum, uint32_t layers,
                                              uint32_t absent);

  // Reads the key as idle: named, but without effect here.
  void pass(std::string_view key) { read_.emplace(key); }
  Result<> refuse_unused() const;

  std::unexpected<Error> missing(std::string_view key) const;
  std::unexpected<Error> not_supported(std::string_view key, std::string_view value) const;

 private:
  const formats::GgufMetadata& values() const { return *checkpoint_->gguf(); }

  const formats::Checkpoint* checkpoint_;
  std::string architecture_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace shoal::model
