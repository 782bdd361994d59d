#include "link/tcp_link.h"

#include <array>
#include <future>
#include <gtest/gtest.h>
#include <random>

#include "link/tcp_handshake.h"

namespace shoal::link {
namespace {

constexpr Duration kPatience = seconds(30);
TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

const Credentials kCaller{"model", 3, "secret", 0, 1};
const Credentials kListener{"model", 3, "secret", 1, 0};

class TcpListening : public testing::Test {
 protected:
  SocketAddress address() const { return SocketAddress::parse("127.0.0.1", listener.port()).value(); }
  FileDescriptor stranger() const { return connect_tcp(address(), in(kPatience)).value(); }
  static void say(const FileDescriptor& socket, ByteView bytes) {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    ASSERT_EQ(send_some(socket.get(), std::span(&part, 1)).bytes, bytes.size());
  }
  // What the listener says before it hangs up.
  static size_t heard(const FileDescriptor& socket) {
    size_t total = 0;
    std::array<std::byte, 256> chunk;
    while (wait_readable(socket.get(), in(kPatience))) {
      Transfer transfer = receive_some(socket.get(), chunk);
      if (transfer.status == TransferStatus::would_block) continue;
      if (transfer.status != TransferStatus::moved) return total;
      total += transfer.bytes;
    }
    ADD_FAILURE() << "the listener never hung up";
    return total;
  }
  std::future<Result<std::unique_ptr<Link>>> accept() {
    return std::async(std::launch::async, [this] { return listener.accept(kListener, in(kPatience)); });
  }

  TcpLinkListener listener = TcpLinkListener::open({"127.0.0.1"}).value();
};

TEST_F(TcpListening, StrangersLearnNothingAndDoNotKeepThePeerOut) {
  auto accepted = accept();
  std::vector<FileDescriptor> silent;
  for (int i = 0; i < 40; ++i) silent.push_back(stranger());
  FileDescriptor web = stranger();
  say(web, as_bytes("GET / HTTP/1.1\r\nHost: model\r\n\r\n"));
  FileDescriptor huge = stranger();
  say(huge, as_bytes("\xff\xff\xff\x7f"));
  std::mt19937 random(5);
  std::vector<FileDescriptor> noisy;
  for (int i = 0; i < 20; ++i) {
    noisy.push_back(stranger());
    ByteWriter noise;
    noise.write<uint32_t>(48);
    for (int j = 0; j < 12; ++j) noise.write<uint32_t>(static_cast<uint32_t>(random()));
    say(noisy.back(), noise.bytes());
  }
  auto link = connect_tcp_link({address()}, kCaller, in(kPatience));
  ASSERT_TRUE(link) << link.error().text();
  auto other = accepted.get();
  ASSERT_TRUE(other) << other.error().text();
  EXPECT_EQ(heard(web), 0u);
  EXPECT_EQ(heard(huge), 0u);
  for (const FileDescriptor& socket : noisy) EXPECT_EQ(heard(socket), 0u);
  ASSERT_TRUE((*link)->send({0, 5, Buffer()}));
  auto frame = (*other)->receive(0, in(kPatience));
  ASSERT_TRUE(frame && *frame);
  EXPECT_EQ((**frame).step, 5u);
}

TEST_F(TcpListening, AWrongSecretInstanceEpochOrRankIsRefused) {
  auto accepted = accept();
  std::vector<Credentials> wrong(5, kCaller);
  wrong[0].secret = "secres";
  wrong[1].instance = "other";
  wrong[2].epoch = 2;
  wrong[3].rank = 2;
  wrong[4].secret = "";
  for (const Credentials& credentials : wrong) {
    FileDescriptor socket = stranger();
    say(socket, encode_hello({Purpose::data, 1, credentials}));
    EXPECT_EQ(heard(socket), 0u);
  }
  auto refused = connect_tcp_link({address()}, wrong[0], in(milliseconds(1500)));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable) << refused.error().text();
  EXPECT_TRUE(connect_tcp_link({address()}, kCaller, in(kPatience)));
  EXPECT_TRUE(accepted.get());
}

TEST_F(TcpListening, TheAddressesAreTriedInOrderUntilOneWorks) {
  auto accepted = accept();
  auto nobody = TcpLinkListener::open({"127.0.0.1"}).value().port();  // closed again
  auto dead = SocketAddress::parse("127.0.0.1", nobody).value();
  auto link = connect_tcp_link({dead, address()}, kCaller, in(kPatience));
  ASSERT_TRUE(link) << link.error().text();
  EXPECT_NE((*link)->peer().find("rank 1"), std::string::npos);
  EXPECT_TRUE(accepted.get());
}

TEST_F(TcpListening, NobodyThereIsUnavailableAtTheDeadline) {
  auto nobody = TcpLinkListener::open({"127.0.0.1"}).value().port();
  auto link =
      connect_tcp_link({SocketAddress::parse("127.0.0.1", nobody).value()}, kCaller, in(milliseconds(250)));
  ASSERT_FALSE(link);
  EXPECT_EQ(link.error().code, ErrorCode::unavailable);
  EXPECT_NE(link.error().message.find("rank 1"), std::string::npos) << link.error().message;
  auto accepted = listener.accept(kListener, in(milliseconds(50)));
  ASSERT_FALSE(accepted);
  EXPECT_EQ(accepted.error().code, ErrorCode::timeout);
}

TEST_F(TcpListening, AListenerThatIsNotThePeerIsNotBelieved) {
  auto impostor = listen_tcp(SocketAddress::parse("127.0.0.1", 0).value(), 4).value();
  auto answering = std::async(std::launch::async, [&] {
    wait_readable(impostor.get(), in(kPatience));
    FileDescriptor socket = accept_tcp(impostor).value();
    wait_readable(socket.get(), in(kPatience));
    HelloReceiver receiver;
    auto hello = receiver.receive(socket).value().value();
    Credentials lie{"model", 3, "not it", 1, 0};
    return answer(socket, {hello.purpose, hello.nonce, lie}).has_value();
  });
  auto target = SocketAddress::parse("127.0.0.1", local_port(impostor).value()).value();
  FileDescriptor socket = connect_tcp(target, in(kPatience)).value();
  auto introduced = introduce(socket, {Purpose::data, 9, kCaller}, "rank 1", in(kPatience));
  ASSERT_FALSE(introduced);
  EXPECT_EQ(introduced.error().code, ErrorCode::unavailable);
  EXPECT_TRUE(answering.get());
}

TEST(TcpLinkListener, ListensOnSeveralAddressesWithOnePort) {
  auto listener = TcpLinkListener::open({"127.0.0.1", "127.0.0.2"});
  ASSERT_TRUE(listener) << listener.error().text();
  for (const char* host : {"127.0.0.1", "127.0.0.2"}) {
    EXPECT_TRUE(connect_tcp(SocketAddress::parse(host, listener->port()).value(), in(kPatience))) << host;
  }
  EXPECT_EQ(TcpLinkListener::open({"no address"}).error().code, ErrorCode::invalid_argument);
}

TEST(Hello, EveryTruncationIsRefused) {
  Bytes whole = encode_hello({Purpose::control, 77, kCaller});
  ByteView body = ByteView(whole).subspan(4);
  ASSERT_TRUE(decode_hello(body));
  EXPECT_TRUE(proves(kListener, decode_hello(body).value()));
  for (size_t size = 0; size < body.size(); ++size) EXPECT_FALSE(decode_hello(body.first(size))) << size;
}

}  // namespace
}  // namespace shoal::link
