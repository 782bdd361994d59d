// Frames over some connection between two processes, without blocking and without threads: the I/O half of a
// Link. stream_link.h makes a Link of one. Every kind has a socket: whoever has nothing to do sleeps in
// poll() on it, and its end is how the loss of the peer is noticed at once.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "link/frame.h"

namespace shoal::link {

// What somebody who is about to sleep wants to be woken for.
enum class Interest : uint8_t {
  room,       // what was stuck can leave
  everything  // that, and anything that arrives
};

class FrameStream {
 public:
  FrameStream(FileDescriptor socket, std::string peer, FrameQueues queues, std::shared_ptr<BufferPool> pool)
      : socket_(std::move(socket)),
        peer_(std::move(peer)),
        queues_(std::move(queues)),
        pool_(std::move(pool)) {}
  virtual ~FrameStream() = default;
  FrameStream(const FrameStream&) = delete;
  FrameStream& operator=(const FrameStream&) = delete;

  virtual std::string_view kind() const = 0;
  const std::string& peer() const { return peer_; }
  BufferPool& pool() { return *pool_; }
  FrameQueues& queues() { return queues_; }
  int fd() const { return socket_.get(); }

  // Both move what they can now (receive a bounded share of it) and say whether anything moved.
  virtual Result<bool> send_ready() = 0;
  virtual Result<bool> receive_ready() = 0;
  bool wants_to_write() const { return sending_.has_value(); }  // there was no room

  // What to poll fd() for; 0: nothing, nullopt: do not sleep, something can move already.
  virtual std::optional<short> watch(Interest interest) = 0;
  // poll() found fd() readable.
  virtual void woken() {}

  // The peer ended its side after a goodbye, ours or its own.
  bool ended() const { return ended_; }
  void end_sending();  // no more from us: the peer meets an end after what was sent
  void cut();          // ends both directions at once

 protected:
  std::unexpected<Error> lost(const std::string& why) const;
  // The peer's side of the socket is at its end: a loss, unless somebody said goodbye.
  Result<> meet_end();

  FileDescriptor socket_;
  std::string peer_;
  FrameQueues queues_;
  std::shared_ptr<BufferPool> pool_;

  std::optional<OutgoingFrame> sending_;
  size_t sent_ = 0;  // bytes of header and payload of sending_

  std::optional<FrameHeader> incoming_;
  Buffer payload_;     // of incoming_
  size_t filled_ = 0;  // bytes of it
  bool ended_ = false;
};

}  // namespace shoal::link
