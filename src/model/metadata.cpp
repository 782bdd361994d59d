#include "model/metadata.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <variant>

#include "formats/layout.h"

namespace shoal::model {
namespace {

using formats::GgufValue;

// Keys under the prefix that change nothing for inference here: sizes that the tensors repeat and notes.
constexpr auto kIdleKeys = std::to_array<std::string_view>({
    "vocab_size",
    "tensor_data_layout",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.type",
    "nextn_predict_layers",
});
// 1 means "nothing" for these.
constexpr auto kFactors = std::to_array<std::string_view>(
    {"logit_scale", "residual_scale", "embedding_scale", "attention.scale", "rope.scaling.attn_factor",
     "expert_weights_scale", "rope.scaling.factor", "rope.scale_linear", "interleave_moe_layer_step"});

std::string shown(const GgufValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* text = std::get_if<std::string>(&value)) return formats::quote(*text);
  if (const auto* number = std::get_if<int64_t>(&value)) return fmt::format("{}", *number);
  if (const auto* number = std::get_if<uint64_t>(&value)) return fmt::format("{}", *number);
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  return "an array";
}

bool is_neutral(const GgufValue& value, std::string_view key) {
  std::optional<double> number;
  if (const auto* flag = std::get_if<bool>(&value)) number = *flag ? 2 : 0;
  if (const auto* whole = std::get_if<int64_t>(&value)) number = static_cast<double>(*whole);
  if (const auto* whole = std::get_if<uint64_t>(&value)) number = static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&value)) number = *real;
  return number && (*number == 0 || (*number == 1 && std::ranges::find(kFactors, key) != kFactors.end()));
}

}  // namespace

Metadata::Metadata(const formats::Checkpoint& checkpoint, std::string_view architecture)
    : checkpoint_(&checkpoint), architecture_(architecture) {}

std::string Metadata::name(std::string_view key) const {
  return fmt::format("{}.{}", architecture_, key);
}

std::unexpected<Error> Metadata::missing(std::string_view key) const {
  return fail(ErrorCode::malformed, fmt::format("'{}' is missing", name(key)));
}

std::unexpected<Error> Metadata::not_supported(std::string_view key, std::string_view value) const {
  return fail(ErrorCode::unsupported, fmt::format("'{}' is {}, which is not supported", name(key), value));
}

Result<std::optional<uint32_t>> Metadata::get_count(std::string_view key, uint64_t maximum) {
  read_.emplace(key);
  SHOAL_TRY(const auto count, values().get_integer(name(key), 1, static_cast<int64_t>(maximum)));
  return count ? std::optional(static_cast<uint32_t>(*count)) : std::nullopt;
}

Result<uint32_t> Metadata::require_count(std::string_view key, uint64_t maximum) {
  read_.emplace(key);
  SHOAL_TRY(const int64_t count, values().require_integer(name(key), 1, static_cast<int64_t>(maximum)));
  return static_cast<uint32_t>(count);
}

Result<uint32_t> Metadata::get_whole(std::string_view key, uint64_t maximum, uint32_t absent) {
  read_.emplace(key);
  SHOAL_TRY(const auto count, values().get_integer(name(key), 0, static_cast<int64_t>(maximum)));
  return count ? static_cast<uint32_t>(*count) : absent;
}

Result<std::optional<double>> Metadata::get_positive(std::string_view key) {
  read_.emplace(key);
  SHOAL_TRY(const auto number, values().get_number(name(key)));
  if (number && (!std::isfinite(*number) || *number <= 0)) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is {}, but must be a number over 0", name(key), *number));
  }
  return number;
}

Result<double> Metadata::require_positive(std::string_view key) {
  SHOAL_TRY(const auto number, get_positive(key));
  if (!number) return missing(key);
  return *number;
}

Result<double> Metadata::get_number(std::string_view key, double absent) {
  read_.emplace(key);
  SHOAL_TRY(const auto number, values().get_number(name(key)));
  if (number && (!std::isfinite(*number) || *number < 0)) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is {}, but must be a number from 0", name(key), *number));
  }
  return number.value_or(absent);
}

Result<bool> Metadata::get_flag(std::string_view key, bool absent) {
  read_.emplace(key);
  SHOAL_TRY(const auto flag, values().get_bool(name(key)));
  return flag.value_or(absent);
}

Result<std::vector<bool>> Metadata::get_flags(std::string_view key) {
  read_.emplace(key);
  const GgufValue* value = values().find(name(key));
  if (!value) return std::vector<bool>();
  if (const auto* flags = std::get_if<std::vector<bool>>(value)) return *flags;
  return fail(ErrorCode::malformed, fmt::format("'{}' is not an array of booleans", name(key)));
}

Result<std::optional<std::string>> Metadata::get_text(std::string_view key) {
  read_.emplace(key);
  return values().get_string(name(key));
}

Result<std::vector<uint32_t>> Metadata::get_wholes(std::string_view key, uint64_t maximum) {
  read_.emplace(key);
  std::vector<uint32_t> wholes;
  for (const int64_t value : values().integers(name(key))) {
    if (value < 0 || static_cast<uint64_t>(value) > maximum) {
      return fail(ErrorCode::malformed,
                  fmt::format("'{}' holds {}, but must be from 0 to {}", name(key), value, maximum));
    }
    wholes.push_back(static_cast<uint32_t>(value));
  }
  return wholes;
}

Result<std::vector<uint32_t>> Metadata::get_per_layer(std::string_view key, uint64_t maximum, uint32_t layers,
                                                      uint32_t absent) {
  SHOAL_TRY(std::vector<uint32_t> wholes, get_wholes(key, maximum));
  if (wholes.empty()) {
    SHOAL_TRY(const uint32_t every, get_whole(key, maximum, absent));
    return std::vector<uint32_t>(layers, every);
  }
  if (wholes.size() < layers) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' has {} entries for {} layers", name(key), wholes.size(), layers));
  }
  wholes.resize(layers);
  return wholes;
}

Result<> Metadata::refuse_unused() const {
  const std::string prefix = architecture_ + ".";
  for (auto place = values().all().lower_bound(prefix); place != values().all().end(); ++place) {
    const auto& [full, value] = *place;
    if (!full.starts_with(prefix)) break;
    const std::string_view key = std::string_view(full).substr(prefix.size());
    if (read_.contains(key) || std::ranges::find(kIdleKeys, key) != kIdleKeys.end() || is_neutral(value, key))
      continue;
    if (key.starts_with("vision.") || key.starts_with("mm.")) continue;  // what sees, in Ollama's files
    if (key == "attention.causal" && std::get_if<bool>(&value) && std::get<bool>(value)) continue;
    return not_supported(key, shown(value));
  }
  return {};
}

}  // namespace shoal::model
