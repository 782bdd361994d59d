// What a model's files call its bos, eos, unk and pad tokens, which templates see as variables:
// tokenizer_config.json beside safetensors (special_tokens_map.json where that says nothing), ids in a GGUF
// header. Private to this room.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::text {

struct SpecialNames {
  std::optional<std::string> bos = std::nullopt;
  std::optional<std::string> eos = std::nullopt;
  std::optional<std::string> unk = std::nullopt;
  std::optional<std::string> pad = std::nullopt;
};

// Absent files name none; a malformed one is an Error.
Result<SpecialNames> special_names_beside(const formats::Checkpoint& checkpoint);
// An id outside the list of tokens is an Error.
Result<SpecialNames> special_names_from_gguf(const formats::GgufMetadata& metadata);

// tokenizer_config.json; an empty object when there is none.
Result<JsonObject> read_tokenizer_config(const formats::Checkpoint& checkpoint);

}  // namespace shoal::text
