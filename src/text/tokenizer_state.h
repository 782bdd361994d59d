// What a Tokenizer holds. Private to this room.
#pragma once

#include "bridge/bridge.h"
#include "text/tokenizer.h"

namespace shoal::text {

struct Tokenizer::State {
  std::unique_ptr<shoal_tokenizer, decltype(&shoal_tokenizer_free)> handle{nullptr, &shoal_tokenizer_free};
  std::vector<AddedToken> added_tokens;
  std::optional<int32_t> bos_id;
};

}  // namespace shoal::text
