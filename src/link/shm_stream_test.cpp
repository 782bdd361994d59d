// Rings of shared memory, and what a peer may do to them.
#include "link/shm_stream.h"

#include <cstring>
#include <future>
#include <gtest/gtest.h>
#include <random>
#include <semaphore>
#include <signal.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/socket.h"
#include "link/tcp_link.h"

namespace shoal::link {
namespace {

constexpr Duration kPatience = seconds(30);
TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

constexpr size_t kSmallRing = 4096;

struct Memory {
  explicit Memory(size_t ring_bytes = kSmallRing)
      : buffer(HugeBuffer::allocate(kRingControlBytes + ring_bytes, "a ring").value()) {}
  RingControl& control() { return *reinterpret_cast<RingControl*>(buffer.data()); }
  std::span<std::byte> bytes() const { return buffer.bytes(); }
  HugeBuffer buffer;
};

Bytes noise(size_t size, uint32_t seed) {
  std::minstd_rand random(seed + 1);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(ShmRing, BytesComeOutAsTheyWentInAcrossTheEdge) {
  Memory memory;
  RingWriter writer(memory.bytes());
  RingReader reader(memory.bytes());
  const Bytes sent = noise(300'000, 1);
  Bytes received(sent.size());
  std::minstd_rand random(2);
  for (size_t in_count = 0, out_count = 0; out_count < sent.size();) {
    const size_t offered = std::min<size_t>(random() % 3000, sent.size() - in_count);
    in_count += writer.append(ByteView(sent).subspan(in_count, offered)).value();
    writer.publish();
    const size_t taken = std::min<size_t>(random() % 3000, reader.available().value());
    reader.read(std::span(received).subspan(out_count, taken));
    out_count += taken;
  }
  EXPECT_EQ(received, sent);
}

TEST(ShmRing, AFullRingTakesNothingAndTheReaderRingsWhenHalfIsFree) {
  Memory memory;
  RingWriter writer(memory.bytes());
  RingReader reader(memory.bytes());
  EXPECT_EQ(writer.append(noise(5000, 1)).value(), kSmallRing);
  EXPECT_EQ(writer.append(noise(1, 1)).value(), 0u);
  writer.publish();
  EXPECT_TRUE(writer.may_sleep().value());
  Bytes piece(kSmallRing / 4);
  ASSERT_EQ(reader.available().value(), kSmallRing);
  reader.read(piece);
  EXPECT_FALSE(reader.must_ring());
  reader.read(piece);
  EXPECT_TRUE(reader.must_ring());
  EXPECT_FALSE(reader.must_ring()) << "told once";
  EXPECT_FALSE(writer.may_sleep().value()) << "there is room";
}

TEST(ShmRing, WhoSaidThatItSleepsIsRungFor) {
  Memory memory;
  RingWriter writer(memory.bytes());
  RingReader reader(memory.bytes());
  EXPECT_FALSE(writer.must_ring());
  EXPECT_TRUE(reader.may_sleep().value());
  EXPECT_EQ(writer.append(noise(10, 1)).value(), 10u);
  writer.publish();
  EXPECT_TRUE(writer.must_ring());
  EXPECT_FALSE(writer.must_ring()) << "told once";
  EXPECT_FALSE(reader.may_sleep().value()) << "there are bytes";
}

TEST(ShmRing, TwoThreadsThatSleepWheneverTheyMayNeverMissABell) {
  Memory memory;
  const Bytes sent = noise(2 << 20, 3);
  std::counting_semaphore<> writer_bell(0), reader_bell(0);
  std::thread writing([&] {
    RingWriter writer(memory.bytes());
    std::minstd_rand random(4);
    for (size_t done = 0; done < sent.size();) {
      const size_t taken =
          writer
              .append(ByteView(sent).subspan(done, std::min<size_t>(1 + random() % 3000, sent.size() - done)))
              .value();
      done += taken;
      writer.publish();
      if (writer.must_ring()) reader_bell.release();
      if (taken == 0 && writer.may_sleep().value() && !writer_bell.try_acquire_for(kPatience)) return;
    }
  });
  RingReader reader(memory.bytes());
  Bytes received(sent.size());
  for (size_t done = 0; done < received.size();) {
    const size_t piece = std::min<size_t>(reader.available().value(), 2000);
    reader.read(std::span(received).subspan(done, piece));
    done += piece;
    if (reader.must_ring()) writer_bell.release();
    if (piece == 0 && reader.may_sleep().value() && !reader_bell.try_acquire_for(kPatience)) break;
  }
  writing.join();
  EXPECT_EQ(received, sent);
}

TEST(ShmRing, ImpossiblePositionsAreMalformed) {
  for (uint64_t position : {uint64_t{kSmallRing + 1}, uint64_t{1} << 40, UINT64_MAX}) {
    Memory memory;
    RingReader reader(memory.bytes());
    memory.control().written = position;
    EXPECT_EQ(reader.available().error().code, ErrorCode::malformed) << position;
  }
  Memory back;
  RingReader reader(back.bytes());
  back.control().written = 100;
  EXPECT_EQ(reader.available().value(), 100u);
  back.control().written = 99;
  EXPECT_EQ(reader.available().error().code, ErrorCode::malformed) << "the writer went back";
  Memory ahead;
  RingWriter writer(ahead.bytes());
  EXPECT_EQ(writer.append(noise(10, 1)).value(), 10u);
  writer.publish();
  ahead.control().read = 11;
  EXPECT_EQ(writer.may_sleep().error().code, ErrorCode::malformed) << "read what was not written";
}

// A stream and the hands of its peer on the memory and the socket.
struct Victim {
  Victim() {
    auto sockets = socket_pair().value();
    peer_socket = std::move(sockets.second);
    stream = std::make_unique<ShmStream>(outgoing.bytes(), incoming.bytes(), std::move(sockets.first), "peer",
                                         16, BufferPool::create(64 << 20));
  }
  Memory outgoing{1 << 16}, incoming{1 << 16};
  FileDescriptor peer_socket;
  std::unique_ptr<ShmStream> stream;
};

TEST(ShmStream, WhatAHostilePeerWritesIsMalformedAndNeverDelivered) {
  unsigned refused = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    Victim victim;
    Bytes junk = noise(1 << 16, seed);
    if (seed % 2 == 0) {  // with a header that is right but for what it asks
      HeaderBytes raw =
          encode_header({.type = FrameType::data, .sequence = seed % 4, .length = 1u << (seed % 29)});
      std::memcpy(junk.data(), raw.data(), raw.size());
    }
    std::memcpy(victim.incoming.bytes().data() + kRingControlBytes, junk.data(), junk.size());
    victim.incoming.control().written = 1 + seed * 400;
    while (victim.stream->queues().next()) {
    }
    auto received = victim.stream->receive_ready();
    const ErrorCode code = received ? ErrorCode::malformed : received.error().code;
    EXPECT_TRUE(code == ErrorCode::malformed || code == ErrorCode::limit_exceeded) << received.error().text();
    refused += received ? 0 : 1;
    auto frame = victim.stream->queues().take(0);
    EXPECT_TRUE(!frame || frame->payload.size() <= 1u << 16);
  }
  EXPECT_GT(refused, 100u);
}

TEST(ShmStream, APeerThatEndsWithoutGoodbyeIsLostAfterWhatItHadSent) {
  Victim victim;
  while (victim.stream->queues().next()) {
  }
  RingWriter peer(victim.incoming.bytes());
  ASSERT_TRUE(peer.append(encode_header({.type = FrameType::data})));
  peer.publish();
  victim.peer_socket.reset();
  victim.stream->woken();
  EXPECT_TRUE(victim.stream->receive_ready().value());
  EXPECT_TRUE(victim.stream->queues().take(0).has_value());
  auto end = victim.stream->receive_ready();
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::unavailable);
}

const Credentials kCaller{"model", 3, "secret", 0, 1};
const Credentials kListener{"model", 3, "secret", 1, 0};

TEST(ShmLink, AKilledPeerIsNoticedAtOnceAwakeOrAsleep) {
  for (Duration spin : {Duration(0), Duration(microseconds(50))}) {
    auto listener = TcpLinkListener::open({"127.0.0.1"}).value();
    const auto address = SocketAddress::parse("127.0.0.1", listener.port()).value();
    const pid_t child = ::fork();
    if (child == 0) {
      auto link = connect_tcp_link({address}, kCaller, in(kPatience));
      if (link && (*link)->send({0, 1, Buffer()})) std::this_thread::sleep_for(kPatience);
      ::_exit(1);
    }
    auto link = listener.accept(kListener, in(kPatience), {.spin = spin});
    ASSERT_TRUE(link) << link.error().text();
    EXPECT_EQ((*link)->kind(), "shm");
    auto first = (*link)->receive(0, in(kPatience));
    ASSERT_TRUE(first && *first);
    std::thread killer([child] {
      std::this_thread::sleep_for(milliseconds(100));
      ::kill(child, SIGKILL);
    });
    const TimePoint start = std::chrono::steady_clock::now();
    auto lost = (*link)->receive(0, in(kPatience));
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, ErrorCode::unavailable);
    EXPECT_EQ(lost.error().message.find("silent"), std::string::npos) << "only its silence told";
    EXPECT_LT(std::chrono::steady_clock::now() - start, kPatience);
    killer.join();
    ::waitpid(child, nullptr, 0);
  }
}

TEST(ShmLink, EitherEndMayKeepToTcp) {
  for (bool caller_shares : {false, true}) {
    auto listener = TcpLinkListener::open({"127.0.0.1"}).value();
    const auto address = SocketAddress::parse("127.0.0.1", listener.port()).value();
    auto accepted = std::async(std::launch::async, [&] {
      return listener.accept(kListener, in(kPatience), {.shared_memory = !caller_shares});
    });
    auto link = connect_tcp_link({address}, kCaller, in(kPatience), {.shared_memory = caller_shares});
    auto other = accepted.get();
    ASSERT_TRUE(link && other);
    EXPECT_EQ((*link)->kind(), "tcp");
    EXPECT_EQ((*other)->kind(), "tcp");
    ASSERT_TRUE((*link)->send({0, 5, Buffer()}));
    auto frame = (*other)->receive(0, in(kPatience));
    ASSERT_TRUE(frame && *frame);
    EXPECT_EQ((**frame).step, 5u);
  }
}

}  // namespace
}  // namespace shoal::link
