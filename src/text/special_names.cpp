#include "text/special_names.h"

#include "base/limits.h"

namespace shoal::text {

namespace {

// "<s>", or {"content": "<s>", …}, or null.
Result<std::optional<std::string>> token_name(const JsonObject& config, std::string_view field) {
  const Json* value = find(config, field);
  if (value == nullptr) return std::nullopt;
  if (const JsonObject* object = value->if_object()) return get_string(*object, "content");
  return get_string(config, field);
}

Result<std::optional<std::string>> token_name(const formats::GgufMetadata& metadata, std::string_view key) {
  const std::vector<std::string>* tokens = metadata.find_strings("tokenizer.ggml.tokens");
  const int64_t largest = tokens == nullptr ? 0 : static_cast<int64_t>(tokens->size()) - 1;
  // Some writers say "none" with all bits set.
  SHOAL_TRY(std::optional<int64_t> id, metadata.get_integer(key, -1, UINT32_MAX));
  if (!id.has_value() || *id == -1 || *id == UINT32_MAX || tokens == nullptr) return std::nullopt;
  if (*id > largest) {
    return fail(ErrorCode::malformed, std::string(key) + " is " + std::to_string(*id) +
                                          ", but the tokenizer has " + std::to_string(tokens->size()) +
                                          " tokens");
  }
  return (*tokens)[static_cast<size_t>(*id)];
}

Result<JsonObject> read_object(const formats::Checkpoint& checkpoint, std::string_view file) {
  auto text = checkpoint.read_sibling(file, limits::kMaxConfigBytes);
  if (!text.has_value()) {
    if (text.error().code == ErrorCode::not_found) return JsonObject();
    return std::unexpected(std::move(text).error());
  }
  return parse_json_object(*text, file);
}

}  // namespace

Result<JsonObject> read_tokenizer_config(const formats::Checkpoint& checkpoint) {
  return read_object(checkpoint, "tokenizer_config.json");
}

Result<SpecialNames> special_names_beside(const formats::Checkpoint& checkpoint) {
  SHOAL_TRY(JsonObject config, read_tokenizer_config(checkpoint));
  SHOAL_TRY(JsonObject map, read_object(checkpoint, "special_tokens_map.json"));
  for (const auto& [name, value] : map) config.emplace(name, value);
  SpecialNames names;
  SHOAL_TRY(names.bos, token_name(config, "bos_token"));
  SHOAL_TRY(names.eos, token_name(config, "eos_token"));
  SHOAL_TRY(names.unk, token_name(config, "unk_token"));
  SHOAL_TRY(names.pad, token_name(config, "pad_token"));
  return names;
}

Result<SpecialNames> special_names_from_gguf(const formats::GgufMetadata& metadata) {
  SpecialNames names;
  SHOAL_TRY(names.bos, token_name(metadata, "tokenizer.ggml.bos_token_id"));
  SHOAL_TRY(names.eos, token_name(metadata, "tokenizer.ggml.eos_token_id"));
  SHOAL_TRY(names.unk, token_name(metadata, "tokenizer.ggml.unknown_token_id"));
  SHOAL_TRY(names.pad, token_name(metadata, "tokenizer.ggml.padding_token_id"));
  return names;
}

}  // namespace shoal::text
