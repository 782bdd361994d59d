// Frames between two processes of one machine: a ring of shared memory for each direction. The TCP connection
// over which they met stays: a byte on it is the bell for an end that sleeps, and its end tells at once that
// the peer is gone. Payloads carry no checksum, for nothing lies between the two ends that could damage them;
// headers are copied out of the ring before they are judged.
#pragma once

#include <memory>

#include "base/shared_segment.h"
#include "link/frame_stream.h"
#include "link/shm_ring.h"

namespace shoal::link {

// Which end of the segment this is.
enum class ShmEnd : uint8_t { creator, opener };

class ShmStream final : public FrameStream {
 public:
  static constexpr size_t kRingBytes = 1 << 20;
  static constexpr size_t kSegmentBytes = 2 * (kRingControlBytes + kRingBytes);

  // `segment` has kSegmentBytes; one end created it, the other opened it.
  ShmStream(SharedSegment segment, ShmEnd end, FileDescriptor socket, std::string peer, uint32_t window_units,
            std::shared_ptr<BufferPool> pool);
  // Over memory that somebody else keeps: for tests.
  ShmStream(std::span<std::byte> outgoing, std::span<std::byte> incoming, FileDescriptor socket,
            std::string peer, uint32_t window_units, std::shared_ptr<BufferPool> pool);

  std::string_view kind() const override { return "shm"; }
  Result<bool> send_ready() override;
  Result<bool> receive_ready() override;
  std::optional<short> watch(Interest interest) override;
  void woken() override { bell_rang_ = true; }

 private:
  Result<bool> append_frame();
  Result<size_t> read_part(size_t available);
  Result<> listen_to_bell();
  void ring();
  std::unexpected<Error> broken(const Error& error) const;

  SharedSegment segment_;
  RingWriter writer_;
  RingReader reader_;
  bool bell_rang_ = false;
  bool peer_gone_ = false;
};

}  // namespace shoal::link
