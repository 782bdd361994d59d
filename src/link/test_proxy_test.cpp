#include "link/test_proxy.h"

#include <array>
#include <gtest/gtest.h>

namespace shoal::link {
namespace {
TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}
}  // namespace

TestProxy::TestProxy(uint16_t target_port) : target_port_(target_port) {
  listener_ = listen_tcp(SocketAddress::parse("127.0.0.1", 0).value(), 16).value();
  port_ = local_port(listener_).value();
  server_ = std::thread([this] { serve(); });
}

TestProxy::~TestProxy() {
  stopping_ = true;
  server_.join();
  for (std::thread& pump : pumps_) pump.join();
}

void TestProxy::cut() {
  std::lock_guard lock(mutex_);
  for (FileDescriptor& socket : sockets_) ::shutdown(socket.get(), SHUT_RDWR);
}

void TestProxy::serve() {
  while (!stopping_) {
    if (!wait_readable(listener_.get(), in(milliseconds(20)))) continue;
    auto caller = accept_tcp(listener_);
    if (!caller || !caller->valid()) continue;
    auto target = connect_tcp(SocketAddress::parse("127.0.0.1", target_port_).value(), in(seconds(5)));
    if (!target) continue;
    std::lock_guard lock(mutex_);
    int a = caller->get();
    int b = target->get();
    sockets_.push_back(std::move(*caller));
    sockets_.push_back(std::move(*target));
    pumps_.emplace_back([this, a, b] { pump(a, b); });
    pumps_.emplace_back([this, a, b] { pump(b, a); });
  }
}

void TestProxy::pump(int from, int to) {
  std::array<std::byte, 64 << 10> chunk;
  while (!stopping_) {
    if (frozen_ || !wait_readable(from, in(milliseconds(20)))) {
      if (frozen_) std::this_thread::sleep_for(milliseconds(5));
      continue;
    }
    Transfer got = receive_some(from, chunk);
    if (got.status == TransferStatus::would_block) continue;
    if (got.status != TransferStatus::moved) break;
    if (got.bytes >= kDamageBytes && damage_.exchange(false)) chunk[got.bytes - 1] ^= std::byte{1};
    for (size_t sent = 0; sent < got.bytes && !stopping_;) {
      iovec part{chunk.data() + sent, got.bytes - sent};
      Transfer put = send_some(to, std::span(&part, 1));
      if (put.status == TransferStatus::moved) sent += put.bytes;
      if (put.status == TransferStatus::would_block) std::this_thread::sleep_for(microseconds(100));
      if (put.status == TransferStatus::failed) return;
    }
  }
  ::shutdown(to, SHUT_WR);
}

}  // namespace shoal::link
