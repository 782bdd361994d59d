// What a model's files call its bos and eos tokens: tokenizer_config.json beside safetensors, ids in a GGUF
// header. Private to this room.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::text {

struct SpecialNames {
  std::optional<std::string> bos;
  std::optional<std::string> eos;
};

// An absent tokenizer_config.json names none; a malformed one is an Error.
Result<SpecialNames> special_names_beside(const formats::Checkpoint& checkpoint);
// An id outside the list of tokens is an Error.
Result<SpecialNames> special_names_from_gguf(const formats::GgufMetadata& metadata);

// tokenizer_config.json; an empty object when there is none.
Result<JsonObject> read_tokenizer_config(const formats::Checkpoint& checkpoint);

}  // namespace shoal::text
