// Frames over the slots of a queue pair, without blocking and without threads: the I/O half of a verbs Link.
// Frames follow each other in a stream of bytes that is cut into chunks, one to a SEND. A chunk begins with
// 32 bytes, little-endian: magic [4], sequence [4], bytes used [4], RECVs posted again so far [4], the
// receiver's nonce [8], zero [4], CRC-32C of the 28 bytes before [4]. The payload of a frame is under the
// frame's own CRC.
//
// A provider may drop a SEND that meets no RECV, or damage memory when too many are under way. So a sender
// never has more chunks on their way than the peer has RECVs posted, and keeps one RECV for a chunk that does
// nothing but return credit: both sides can always tell each other that there is room. A gap in the sequence,
// or a damaged byte, ends the Link.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "link/frame.h"
#include "link/verbs_queue.h"

namespace shoal::link {

class VerbsStream {
 public:
  struct Nonces {
    uint64_t own = 0;  // in every chunk that is meant for us
    uint64_t peer = 0;
  };
  VerbsStream(std::unique_ptr<VerbsQueue> queue, uint32_t peer_slot_count, const Nonces& nonces,
              std::string peer, uint32_t window_units, std::shared_ptr<BufferPool> pool);

  FrameQueues& queues() { return queues_; }

  // Both move what they can now (receive a bounded share of it) and say whether anything moved.
  Result<bool> send_ready();
  Result<bool> receive_ready();
  bool idle() const { return !sending_ && queue_->idle(); }  // nothing of ours is on its way

  uint32_t chunks_completed() const { return queue_->completed_sends(); }
  uint32_t chunks_received() const { return receive_sequence_; }

 private:
  size_t fill(std::span<std::byte> space);
  Result<> post_chunk(std::span<std::byte> slot, size_t used);
  Result<ByteView> open_chunk(ByteView chunk);
  Result<> parse(ByteView bytes);
  std::unexpected<Error> lost(ErrorCode code, const std::string& why) const;
  uint32_t peer_room() const { return peer_slot_count_ - (send_sequence_ - peer_returned_); }

  std::unique_ptr<VerbsQueue> queue_;
  const uint32_t peer_slot_count_;
  const Nonces nonces_;
  std::string peer_;
  FrameQueues queues_;
  std::shared_ptr<BufferPool> pool_;

  std::optional<OutgoingFrame> sending_;
  size_t sent_ = 0;             // bytes of header and payload of sending_
  uint32_t send_sequence_ = 0;  // chunks sent, wraps
  uint32_t peer_returned_ = 0;  // of them, those whose RECV is posted again

  HeaderBytes raw_header_{};
  size_t raw_filled_ = 0;
  std::optional<FrameHeader> incoming_;
  Buffer payload_;
  size_t filled_ = 0;
  uint32_t receive_sequence_ = 0;  // chunks received, wraps
  uint32_t told_ = 0;              // of receive_sequence_, as the peer knows it
};

}  // namespace shoal::link
