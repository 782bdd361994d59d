// The worker's end of the socket to its node: blocking, whole messages. One thread receives, any may send.
#pragma once

#include <mutex>
#include <optional>

#include "base/clock.h"
#include "base/file.h"
#include "worker/messages.h"

namespace shoal::worker {

class NodeChannel {
 public:
  // `spin`: how long receive() looks before it sleeps.
  NodeChannel(FileDescriptor socket, Duration spin);

  // The next message; nullopt when the node has closed its end.
  Result<std::optional<NodeMessage>> receive();
  // Blocks while the node does not read. A node that is gone is not an error here: receive() and
  // wait_for_end() tell.
  void send(const WorkerMessage& message);
  // Returns when the node has closed its end or died, whatever is still unread.
  void wait_for_end();

 private:
  bool fill(std::span<std::byte> bytes);  // false: the node is gone

  FileDescriptor socket_;
  Duration spin_;
  std::mutex send_mutex_;  // keeps the messages of several threads whole
  Bytes message_;
};

}  // namespace shoal::worker
