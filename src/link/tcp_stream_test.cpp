#include "link/tcp_stream.h"

#include <cstring>
#include <gtest/gtest.h>
#include <random>

#include "base/socket.h"

namespace shoal::link {
namespace {

struct Streams {
  Streams() {
    auto sockets = socket_pair().value();
    auto pool = BufferPool::create(256 << 20);
    a = std::make_unique<TcpStream>(std::move(sockets.first), "b", 16384, pool);
    b = std::make_unique<TcpStream>(std::move(sockets.second), "a", 16384, pool);
  }
  std::unique_ptr<TcpStream> a;
  std::unique_ptr<TcpStream> b;
};

size_t next_size(std::minstd_rand& random, size_t last) {
  constexpr size_t kLimits[] = {1, 64, 1024, 5000, 66'000, 200'000};
  return random() % 3 != 0 ? last : random() % kLimits[random() % std::size(kLimits)];
}

std::byte byte_of(uint64_t frame, size_t i) {
  return static_cast<std::byte>(frame * 31 + i + i / 251);
}

// Frames keep their size for a while, so that the payload is read to its place, and then do not.
TEST(TcpStream, FramesOfChangingSizesArriveWholeHoweverTheyAreCut) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    Streams streams;
    std::minstd_rand random(seed);
    constexpr uint64_t kFrames = 150;
    size_t size = 0;
    uint64_t sent = 0, received = 0;
    while (received < kFrames) {
      for (uint64_t burst = random() % 4; burst != 0 && sent < kFrames && streams.a->queues().has_room(0);
           --burst) {
        size = next_size(random, size);
        Buffer buffer = streams.a->pool().allocate(size).value();
        for (size_t i = 0; i < size; ++i) buffer.data()[i] = byte_of(sent, i);
        streams.a->queues().push({0, sent << 32 | size, std::move(buffer)});
        ++sent;
      }
      ASSERT_TRUE(streams.b->send_ready());  // credit
      ASSERT_TRUE(streams.a->receive_ready());
      ASSERT_TRUE(streams.a->send_ready());
      auto moved = streams.b->receive_ready();
      ASSERT_TRUE(moved) << moved.error().text();
      while (auto frame = streams.b->queues().take(0)) {
        ASSERT_EQ(frame->step, received << 32 | frame->payload.size());
        for (size_t i = 0; i < frame->payload.size(); ++i) {
          ASSERT_EQ(frame->payload.data()[i], byte_of(received, i)) << "frame " << received << " at " << i;
        }
        ++received;
      }
    }
  }
}

}  // namespace
}  // namespace shoal::link
