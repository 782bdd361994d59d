// What a gateway remembers of a running request: enough to ask again, elsewhere, for the rest of its answer.
// In memory.
#pragma once

#include <optional>
#include <span>

#include "cluster/bus.h"
#include "serving/messages.h"

namespace shoal::serving {

struct JournalEntry {
  SubmitMessage submit;   // prompt, sampling state and, in `committed`, every token of the answer so far
  cluster::NodeId owner;  // whom it was sent to

  // Takes the tokens that are new: those said before are dropped. nullopt when some in between are missing.
  std::optional<std::span<const runtime::SampledToken>> commit(const TokensMessage& message) {
    const size_t known = submit.committed.size();
    if (message.first_index > known) return std::nullopt;
    const size_t repeated = known - message.first_index;
    std::span<const runtime::SampledToken> fresh(message.tokens);
    fresh = fresh.subspan(std::min(repeated, fresh.size()));
    for (const runtime::SampledToken& token : fresh) submit.committed.push_back(token.token);
    return fresh;
  }
};

}  // namespace shoal::serving
