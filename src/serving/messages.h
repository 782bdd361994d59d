// What gateway and owner say to each other over the Bus, in binary. Every message carries the instance's
// epoch and the request id that its gateway drew; the sender's node id comes with the Bus. decode() treats
// the bytes as hostile. Messages may come twice or late: the receiver knows by epoch, request and token index
// what to drop.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "runtime/sampling.h"
#include "scheduler/scheduler.h"

namespace shoal::serving {

using RequestId = uint64_t;  // unique per gateway

inline constexpr std::string_view kSubmitTopic = "serving/submit";  // gateway -> owner
inline constexpr std::string_view kCancelTopic = "serving/cancel";  // gateway -> owner
inline constexpr std::string_view kAcceptTopic = "serving/accept";  // owner -> gateway
inline constexpr std::string_view kTokensTopic = "serving/tokens";  // owner -> gateway
inline constexpr std::string_view kFailTopic = "serving/fail";      // owner -> gateway; ends the request

struct SubmitMessage {
  std::string instance;
  uint32_t epoch = 0;
  RequestId request = 0;
  std::vector<int32_t> prompt;
  std::vector<int32_t> committed;  // of the answer
  runtime::SamplingParameters sampling;
  uint32_t maximum_tokens = 0;  // of the answer, committed ones included
  std::vector<int32_t> stop_ids;
  bool ignore_end_of_sequence = false;

  Bytes encode() const;
  static Result<SubmitMessage> decode(ByteView bytes);
};

struct CancelMessage {
  std::string instance;
  uint32_t epoch = 0;
  RequestId request = 0;

  Bytes encode() const;
  static Result<CancelMessage> decode(ByteView bytes);
};

struct AcceptMessage {
  uint32_t epoch = 0;
  RequestId request = 0;

  Bytes encode() const;
  static Result<AcceptMessage> decode(ByteView bytes);
};

struct TokensMessage {
  uint32_t epoch = 0;
  RequestId request = 0;
  uint32_t first_index = 0;    // of tokens[0] in the answer
  uint32_t cached_tokens = 0;  // of the prompt
  std::vector<runtime::SampledToken> tokens;
  std::optional<scheduler::EndReason> end;

  Bytes encode() const;
  static Result<TokensMessage> decode(ByteView bytes);
};

struct FailMessage {
  uint32_t epoch = 0;
  RequestId request = 0;
  Error error;

  Bytes encode() const;
  static Result<FailMessage> decode(ByteView bytes);
};

}  // namespace shoal::serving
