// For tests: forwards TCP connections to a port of this machine, and on demand stops forwarding, damages a
// byte, or cuts every connection.
#pragma once

#include <atomic>
#include <list>
#include <mutex>
#include <thread>

#include "base/socket.h"

namespace shoal::link {

class TestProxy {
 public:
  explicit TestProxy(uint16_t target_port);
  ~TestProxy();

  uint16_t port() const { return port_; }
  void freeze() { frozen_ = true; }
  void damage_next_chunk() { damage_ = true; }  // of at least kDamageBytes, so that heartbeats are left alone
  void cut();

 private:
  static constexpr size_t kDamageBytes = 32;
  void serve();
  void pump(int from, int to);

  FileDescriptor listener_;
  uint16_t port_ = 0;
  uint16_t target_port_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> frozen_{false};
  std::atomic<bool> damage_{false};
  std::mutex mutex_;  // guards the two lists
  std::list<FileDescriptor> sockets_;
  std::list<std::thread> pumps_;
  std::thread server_;
};

}  // namespace shoal::link
