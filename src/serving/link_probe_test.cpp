// Measuring a path: the arithmetic, real measurements over loopback, and clients that mean no good.
#include "serving/link_probe.h"

#include <gtest/gtest.h>

#include "base/socket.h"
#include "serving/link_probe_responder.h"

namespace shoal::serving {
namespace {

TimePoint at(int64_t microseconds_) {
  return TimePoint(microseconds(microseconds_));
}

TEST(ArrivalRate, IsThatOfTheLaterHalf) {
  EXPECT_EQ(arrival_rate({}), 0);
  const std::vector<Arrival> one = {{at(5), 1000}};
  EXPECT_EQ(arrival_rate(one), 0);
  // 10 kB in the first 100 ms while TCP starts, then 1 MB/s.
  std::vector<Arrival> slow_start = {{at(0), 1000}, {at(100'000), 10'000}};
  for (int i = 1; i <= 100; ++i)
    slow_start.push_back({at(100'000 + i * 1000), 10'000 + static_cast<uint64_t>(i) * 1000});
  EXPECT_NEAR(arrival_rate(slow_start), 1e6, 1e4);
  const std::vector<Arrival> two = {{at(0), 600}, {at(1000), 1000}};
  EXPECT_DOUBLE_EQ(arrival_rate(two), 400'000);
}

TEST(ProbeFrames, AreReadBackAndNothingElseIs) {
  ProbeNonce nonce;
  nonce.fill(std::byte{7});
  EXPECT_EQ(*read_probe_hello(probe_hello(nonce)), nonce);
  const auto command = read_probe_frame(probe_frame(ProbeFrameType::data, 1ull << 60));
  ASSERT_TRUE(command.has_value());
  EXPECT_EQ(command->value, 1ull << 60);
  const ProbeFrame good = probe_frame(ProbeFrameType::ping, 5);
  for (size_t i = 0; i < good.size(); ++i) {
    ProbeFrame bad = good;
    bad[i] ^= std::byte{0x80};
    const bool in_value = i >= 8 && i < 16;
    EXPECT_EQ(read_probe_frame(bad).has_value(), in_value) << i;
    ProbeFrame hello = probe_hello(nonce);
    hello[i] ^= std::byte{0x80};
    EXPECT_EQ(read_probe_hello(hello).has_value(), i >= 8 && i < 24) << i;
  }
}

class Responder : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = LinkProbeResponder::start({"127.0.0.1"});
    ASSERT_TRUE(started.has_value()) << started.error().text();
    responder = *std::move(started);
  }
  FileDescriptor connect() {
    return *connect_tcp(*SocketAddress::parse("127.0.0.1", responder->port()), clock.now() + seconds(5));
  }
  static void send(const FileDescriptor& socket, ByteView bytes) {
    iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
    send_some(socket.get(), {&piece, 1});
  }
  // What comes back until the other side hangs up; nullopt when it does not.
  std::optional<size_t> bytes_until_end(const FileDescriptor& socket) {
    size_t count = 0;
    std::array<std::byte, 4096> piece;
    const TimePoint deadline = clock.now() + seconds(20);
    while (wait_readable(socket.get(), deadline)) {
      const Transfer got = receive_some(socket.get(), piece);
      if (got.status == TransferStatus::moved)
        count += got.bytes;
      else if (got.status != TransferStatus::would_block)
        return count;
    }
    return std::nullopt;
  }
  bool answers_ping(const FileDescriptor& socket) {
    const ProbeFrame ping = probe_frame(ProbeFrameType::ping, 9);
    send(socket, ping);
    ProbeFrame answer{};
    return wait_readable(socket.get(), clock.now() + seconds(10)) &&
           receive_some(socket.get(), answer).bytes == answer.size() && answer == ping;
  }
  FileDescriptor greeted() {
    FileDescriptor socket = connect();
    send(socket, probe_hello(responder->allow()));
    return socket;
  }

  SystemClock clock;
  std::atomic<bool> cancelled = false;
  std::unique_ptr<LinkProbeResponder> responder;
};

TEST_F(Responder, IsMeasuredByWhoKnowsTheNonce) {
  const auto figures = measure_path("127.0.0.1", responder->port(), responder->allow(), cancelled);
  ASSERT_TRUE(figures.has_value()) << figures.error().text();
  EXPECT_EQ(figures->local_address, "127.0.0.1");
  EXPECT_GT(figures->rtt_p50_us, 0);
  EXPECT_GE(figures->rtt_p99_us, figures->rtt_p50_us);
  EXPECT_GT(figures->bytes_per_second, 1e6);
}

TEST_F(Responder, SaysNothingToStrangers) {
  ProbeNonce wrong = responder->allow();
  wrong[3] ^= std::byte{1};
  const auto figures = measure_path("127.0.0.1", responder->port(), wrong, cancelled);
  ASSERT_FALSE(figures.has_value());
  EXPECT_EQ(figures.error().code, ErrorCode::unavailable);
  for (const std::string_view text : {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                      "shoalpr1????????????????\x01\x02\x03\x04\x05\x06\x07\x08"}) {
    const FileDescriptor socket = connect();
    send(socket, as_bytes(text));
    EXPECT_EQ(bytes_until_end(socket), 0u) << text;
  }
}

TEST_F(Responder, HangsUpOnWhoIsSlow) {
  const TimePoint begin = clock.now();
  const FileDescriptor silent = connect();
  const FileDescriptor half = connect();
  send(half, ByteView(probe_hello(responder->allow())).first(31));
  EXPECT_EQ(bytes_until_end(silent), 0u);
  EXPECT_EQ(bytes_until_end(half), 0u);
  EXPECT_GE(clock.now() - begin, LinkProbeResponder::kHelloTime - milliseconds(100));
}

TEST_F(Responder, HangsUpOnGarbageAfterTheHello) {
  for (const ProbeFrame& frame : {ProbeFrame{}, probe_frame(ProbeFrameType{9}, 0),
                                  probe_frame(ProbeFrameType::data, kMaxProbeChunkBytes + 1),
                                  probe_frame(ProbeFrameType::data, UINT64_MAX)}) {
    const FileDescriptor socket = greeted();
    ASSERT_TRUE(answers_ping(socket));
    send(socket, frame);
    EXPECT_EQ(bytes_until_end(socket), 0u);
  }
}

TEST_F(Responder, TakesNoMoreThanItsShareOfPingsAndBytes) {
  const FileDescriptor chatty = greeted();
  std::optional<size_t> returned;
  for (size_t i = 0; i < kMaxProbePings + 1; ++i) send(chatty, probe_frame(ProbeFrameType::ping, i));
  returned = bytes_until_end(chatty);
  ASSERT_TRUE(returned.has_value());
  EXPECT_LE(*returned, kMaxProbePings * sizeof(ProbeFrame));

  const FileDescriptor flood = greeted();
  ASSERT_TRUE(set_blocking(flood.get(), true).has_value());
  Bytes chunk(sizeof(ProbeFrame) + kMaxProbeChunkBytes);
  const ProbeFrame header = probe_frame(ProbeFrameType::data, kMaxProbeChunkBytes);
  std::copy(header.begin(), header.end(), chunk.begin());
  uint64_t sent = 0;
  while (sent < 64 * kProbeBurstBytes) {
    iovec piece{chunk.data(), chunk.size()};
    const Transfer transfer = send_some(flood.get(), {&piece, 1});
    if (transfer.status != TransferStatus::moved) break;
    sent += transfer.bytes;
  }
  EXPECT_LT(sent, 64 * kProbeBurstBytes);
}

TEST_F(Responder, TakesNoMoreThanItsShareOfConnections) {
  std::vector<FileDescriptor> held;
  for (size_t i = 0; i < LinkProbeResponder::kMaxConnections; ++i) {
    held.push_back(greeted());
    ASSERT_TRUE(answers_ping(held.back())) << i;
  }
  const FileDescriptor late = greeted();
  EXPECT_EQ(bytes_until_end(late), 0u);
  held.pop_back();
  // A place is free as soon as the responder has seen the other leave.
  const TimePoint deadline = clock.now() + seconds(10);
  bool served = false;
  while (!served && clock.now() < deadline) served = answers_ping(greeted());
  EXPECT_TRUE(served);
}

TEST_F(Responder, ForgettingANonceEndsItsMeasurement) {
  const ProbeNonce nonce = responder->allow();
  EXPECT_TRUE(responder->busy());
  const FileDescriptor socket = connect();
  send(socket, probe_hello(nonce));
  ASSERT_TRUE(answers_ping(socket));
  responder->forget(nonce);
  EXPECT_FALSE(responder->busy());
  EXPECT_EQ(bytes_until_end(socket), 0u);
  const FileDescriptor again = connect();
  send(again, probe_hello(nonce));
  EXPECT_EQ(bytes_until_end(again), 0u);
}

TEST_F(Responder, AMeasurementThatIsGivenUpEnds) {
  cancelled = true;
  const auto figures = measure_path("127.0.0.1", responder->port(), responder->allow(), cancelled);
  ASSERT_FALSE(figures.has_value());
  EXPECT_EQ(figures.error().code, ErrorCode::cancelled);
}

TEST(MeasurePath, NobodyThereIsAnError) {
  const std::atomic<bool> cancelled = false;
  const auto refused = measure_path("127.0.0.1", 1, {}, cancelled);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_EQ(measure_path("a name", 1, {}, cancelled).error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace shoal::serving
