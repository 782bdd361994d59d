// Link: ordered, framed, flow-controlled messages between two workers. Ask it for a Buffer, fill it in place,
// send it; the Link owns it until it has left. Frames of one channel arrive in order and whole, or the Link
// is lost; there is no repair. A peer that is silent for a lease, a damaged frame, or a gap in the sequence
// means lost; an orderly goodbye is told apart from that. Kinds: tcp (tcp_link.h), memory (memory_link.h),
// shaped (shaped_link.h, wraps another). Thread-safe; heartbeats and half-sent frames go on while the users
// of a Link compute.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/limits.h"
#include "base/result.h"
#include "link/buffer_pool.h"
#include "link/frame.h"

namespace shoal::link {

struct LinkOptions {
  uint32_t window_units = 16384;  // per channel and direction, of 4 KiB: 64 MiB
  Duration heartbeat = milliseconds(limits::kHeartbeatMs);
  Duration lease = milliseconds(limits::kLeaseMs);
  // How long a waiting thread looks before it sleeps; less while others want its core (spin_budget.h).
  Duration spin = microseconds(50);
  // Between processes of one machine and user, when the handshake of a TCP Link finds them so.
  bool shared_memory = true;

  // For a waiting thread that does not learn whether others want its core: 5 µs where there are few.
  static Duration default_spin();
};

// Errors of send and receive: `cancelled` the peer said goodbye, `unavailable` the peer is lost, `malformed`
// it broke the protocol or the bytes were damaged on the way, `limit_exceeded` a frame is too large. After
// one of them (but the last) every later call gives the same; frames that had arrived whole before are still
// received first.
class Link {
 public:
  virtual ~Link() = default;  // without close() before it, the peer counts us as lost

  virtual std::string_view kind() const { return "other"; }  // "tcp", "shm", …: for figures and people
  virtual const std::string& peer() const = 0;               // as named in errors: "rank 1 at 10.0.0.2:4100"

  virtual Result<Buffer> allocate(size_t bytes) = 0;

  // Gives the frame to the Link. Returns at once while less than a window waits to go out on the channel,
  // else when there is room again; `timeout` at the deadline.
  virtual Result<> send(Frame frame, TimePoint deadline = TimePoint::max()) = 0;
  // The next frame of the channel, or nullopt at the deadline.
  virtual Result<std::optional<Frame>> receive(uint8_t channel, TimePoint deadline = TimePoint::max()) = 0;

  // Sends everything that waits, says goodbye and hears the peer end; `timeout` at the deadline. Nothing may
  // follow.
  virtual Result<> close(TimePoint deadline) = 0;
  // Ends without a goodbye, at once: both sides count the other as lost.
  virtual void abort() = 0;

  // Sends one frame and receives one of the same channel; both sides may do so at once, however large the
  // frames.
  Result<Frame> exchange(Frame frame, TimePoint deadline = TimePoint::max());
};

}  // namespace shoal::link
