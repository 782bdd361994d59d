// Frames over one connected socket, without blocking and without threads: the I/O half of a TCP Link.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/result.h"
#include "link/frame.h"

namespace shoal::link {

class TcpStream {
 public:
  TcpStream(FileDescriptor socket, std::string peer, uint32_t window_units, std::shared_ptr<BufferPool> pool);

  FrameQueues& queues() { return queues_; }
  int fd() const { return socket_.get(); }

  // Both move what they can now (receive a bounded share of it) and say whether anything moved.
  Result<bool> send_ready();
  Result<bool> receive_ready();
  bool wants_to_write() const { return sending_.has_value(); }  // the socket was full

  // The peer ended its side after a goodbye, ours or its own.
  bool ended() const { return ended_; }
  void end_sending();  // no more from us: the peer reads an end after what was sent
  void cut();          // ends both directions at once

 private:
  Result<size_t> read_some();
  Result<> parse();
  Result<> finish_frame();
  std::unexpected<Error> lost(const std::string& why) const;

  FileDescriptor socket_;
  std::string peer_;
  FrameQueues queues_;
  std::shared_ptr<BufferPool> pool_;

  std::optional<OutgoingFrame> sending_;
  size_t sent_ = 0;  // bytes of header and payload of sending_

  static constexpr size_t kStagingBytes = 64 << 10;
  std::unique_ptr<std::array<std::byte, kStagingBytes>> staging_;
  size_t staged_begin_ = 0;
  size_t staged_end_ = 0;
  std::optional<FrameHeader> incoming_;
  Buffer payload_;
  size_t filled_ = 0;
  bool ended_ = false;
};

}  // namespace shoal::link
