// What travels between two workers: frames of a 32-byte header and a payload, and the rules both ends keep.
// The header, little-endian: magic and version [4], type [1], channel [1], zero [2], step [8], sequence [4],
// length [4], CRC-32C of the payload [4], CRC-32C of the 28 bytes before [4]. Sequences count every frame of
// a direction from 0 without a gap. FrameQueues is the pure part of a Link: it decides what may go out next,
// checks what came in, and does no I/O.
//
// Flow control: a frame costs 1 + length / 4096 units. A receiver grants units per channel, a whole window at
// first, and again what was taken whenever half a window is owed. A sender may send a frame if it holds its
// cost or half a window, whichever is less; so a frame larger than the window passes, and neither side can
// wait for the other.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "base/result.h"
#include "link/buffer_pool.h"

namespace shoal::link {

inline constexpr size_t kHeaderBytes = 32;
inline constexpr uint8_t kChannels = 4;

struct Frame {
  uint8_t channel = 0;
  uint64_t step = 0;  // what the frame belongs to; for its users alone
  Buffer payload;
};

enum class FrameType : uint8_t { data = 1, credit = 2, close = 3 };

struct FrameHeader {
  FrameType type = FrameType::data;
  uint8_t channel = 0;
  uint64_t step = 0;  // of a credit frame: the units granted
  uint32_t sequence = 0;
  uint32_t length = 0;
  uint32_t payload_crc = 0;
};

using HeaderBytes = std::array<std::byte, kHeaderBytes>;
HeaderBytes encode_header(const FrameHeader& header);
Result<FrameHeader> decode_header(
    const HeaderBytes& raw);  // malformed: magic, version, type, channel, length or CRC

struct OutgoingFrame {
  HeaderBytes header;
  Buffer payload;
};

// What is protected: headers always; payloads where something lies between the ends that could damage them.
enum class Checksum : uint8_t { of_everything, of_headers };

class FrameQueues {
 public:
  // `peer` is named in errors. The window (at least 2 units per channel) bounds what waits here to be taken,
  // and what waits here to be sent.
  FrameQueues(std::string peer, uint32_t window_units, Checksum checksum = Checksum::of_everything);

  bool has_room(uint8_t channel) const;
  void push(Frame frame);                 // has_room(channel) must hold
  void push_close() { closing_ = true; }  // says goodbye after everything pushed so far
  std::optional<OutgoingFrame> next();    // the next frame that may go out now
  bool drained() const;                   // nothing waits to go out

  Result<FrameHeader> open(const HeaderBytes& raw);             // checks order, credit and length
  Result<> deliver(const FrameHeader& header, Buffer payload);  // checks the payload; makes it takeable
  std::optional<Frame> take(uint8_t channel);
  bool peer_closed() const { return peer_closed_; }
  bool close_sent() const { return close_sent_; }  // our goodbye was handed out by next()

 private:
  struct Channel {
    std::deque<Frame> outgoing;
    uint64_t outgoing_units = 0;
    int64_t credit = 0;       // units the peer still lets us send
    int64_t peer_window = 0;  // the most it ever let us: its window, since the first grant is the whole of it
    std::deque<Frame> incoming;
    int64_t granted = 0;  // units the peer may still send us
    uint64_t owed = 0;    // units taken since the last grant
  };

  std::optional<OutgoingFrame> next_credit();
  OutgoingFrame seal(FrameHeader header, Buffer payload);
  std::unexpected<Error> violated(const std::string& what) const;

  std::string peer_;
  uint32_t window_units_;
  Checksum checksum_;
  std::array<Channel, kChannels> channels_;
  uint8_t turn_ = 0;  // the channel to look at first, for fairness
  uint32_t send_sequence_ = 0;
  uint32_t receive_sequence_ = 0;
  bool closing_ = false;
  bool close_sent_ = false;
  bool peer_closed_ = false;
};

}  // namespace shoal::link
