// How two sides come to a connected queue pair over the tcp Link between them. Four rounds, in each of which
// both say one message: what we can do; where our queue pair is; it can receive; it can send and its RECVs
// are posted. Each message may say no and why. Whoever hears or says no stops after that round, so both sides
// always agree on whether there is a queue pair. Private to verbs_*.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "link/link.h"
#include "link/verbs_queue.h"

namespace shoal::link {

inline constexpr uint8_t kVerbsControlChannel = 3;  // of the tcp Link below

struct VerbsIntroduction {
  std::unique_ptr<VerbsQueue> queue;
  uint32_t peer_slot_count = 0;
  uint64_t own_nonce = 0;
  uint64_t peer_nonce = 0;
  std::optional<Error> refusal;  // set: one side said no, and there is no queue
};

// An Error: the tcp Link broke, or the peer was silent until the deadline.
Result<VerbsIntroduction> introduce_verbs(Link& tcp, const Result<std::shared_ptr<const VerbsDevice>>& device,
                                          TimePoint deadline);

// A message of a round, as bytes; for fuzzing. malformed.
struct VerbsMessage {
  std::optional<Error> refusal;
  VerbsTerms terms;        // of the first round
  uint64_t nonce = 0;      // likewise
  VerbsEndpoint endpoint;  // of the second
};
Bytes encode_verbs_message(const VerbsMessage& message);
Result<VerbsMessage> decode_verbs_message(ByteView bytes);

}  // namespace shoal::link
