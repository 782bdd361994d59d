// What two nodes say to each other when one is asked for a model that only the other holds. In binary;
// decode() treats the bytes as hostile. `index` numbers what an asker hears, so that repeated messages are
// dropped and lost ones noticed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "serving/service.h"

namespace shoal::serving {

inline constexpr std::string_view kAskTopic = "serving/ask";         // asker -> holder: generate this for me
inline constexpr std::string_view kHangUpTopic = "serving/hang-up";  // asker -> holder: no longer
inline constexpr std::string_view kHeardTopic = "serving/heard";  // holder -> asker: what its listener heard
inline constexpr std::string_view kPlaceTopic = "serving/place";  // asker -> holder: place this for me
inline constexpr std::string_view kPlacedTopic = "serving/placed";  // holder -> asker: how it went

struct AskMessage {
  uint64_t id = 0;
  GenerateRequest request;

  Bytes encode() const;
  static Result<AskMessage> decode(ByteView bytes);
};

struct HangUpMessage {
  uint64_t id = 0;

  Bytes encode() const;
  static Result<HangUpMessage> decode(ByteView bytes);
};

struct Finished {
  FinishReason reason = FinishReason::stop;
  std::optional<std::string> stop;
  Usage usage;
};

struct HeardMessage {
  uint64_t id = 0;
  uint32_t index = 0;  // 0 says only that the request was taken
  std::string text;
  std::vector<TokenText> tokens;
  std::variant<std::monostate, Finished, Error> end;

  Bytes encode() const;
  static Result<HeardMessage> decode(ByteView bytes);
};

struct PlaceMessage {
  uint64_t id = 0;
  PlaceOptions options;

  Bytes encode() const;
  static Result<PlaceMessage> decode(ByteView bytes);
};

struct PlacedMessage {
  uint64_t id = 0;
  Result<Json> outcome;

  Bytes encode() const;
  static Result<PlacedMessage> decode(ByteView bytes);
};

}  // namespace shoal::serving
