// One suite that every kind of Link must pass.
#include "link/link.h"

#include <cstring>
#include <functional>
#include <future>
#include <gtest/gtest.h>
#include <random>
#include <thread>

#include "link/fake_verbs.h"
#include "link/memory_link.h"
#include "link/shaped_link.h"
#include "link/tcp_link.h"
#include "link/test_proxy.h"

namespace shoal::link {
namespace {

constexpr Duration kPatience = seconds(30);  // far more than anything here takes
TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

struct Pair {
  std::shared_ptr<void> surroundings;  // ends after the links
  std::unique_ptr<Link> a;
  std::unique_ptr<Link> b;
  std::function<void()> freeze_b;
  std::function<void()> damage_next;  // empty where bytes cannot be damaged on their way
  std::function<void()> cut;
};

Pair memory_pair(const LinkOptions& options) {
  MemoryLinks links = make_memory_links(options);
  auto wire = links.wire;
  return {nullptr,
          std::move(links.first),
          std::move(links.second),
          [wire] { freeze(*wire, WireEnd::second); },
          [wire] { damage_next_frame(*wire); },
          [wire] { cut(*wire); }};
}

Pair pair_through_proxy(const LinkOptions& options, const char* kind) {
  auto listener = TcpLinkListener::open({"127.0.0.1"}).value();
  auto proxy = std::make_shared<TestProxy>(listener.port());
  Credentials a{"model", 3, "secret", 0, 1};
  Credentials b{"model", 3, "secret", 1, 0};
  auto accepted = std::async(std::launch::async, [&] { return listener.accept(b, in(kPatience), options); });
  auto address = SocketAddress::parse("127.0.0.1", proxy->port()).value();
  auto connected = connect_tcp_link({address}, a, in(kPatience), options);
  auto other = accepted.get();
  if (!connected || !other) throw std::runtime_error("the pair did not connect");
  if ((*connected)->kind() != kind || (*other)->kind() != kind) throw std::runtime_error("not of the kind");
  return {proxy,
          std::move(*connected),
          std::move(*other),
          [proxy] { proxy->freeze(); },
          [proxy] { proxy->damage_next_chunk(); },
          [proxy] { proxy->cut(); }};
}

Pair tcp_pair(const LinkOptions& options) {
  LinkOptions without = options;
  without.shared_memory = false;
  return pair_through_proxy(without, "tcp");
}

Pair shm_pair(const LinkOptions& options) {
  Pair pair = pair_through_proxy(options, "shm");
  pair.damage_next = nullptr;  // nothing lies between the two ends
  return pair;
}

// RDMA over the fake provider, with tcp for heartbeats.
Pair verbs_pair(const LinkOptions& options, const FakeVerbsOptions& provider) {
  auto fake = std::make_shared<FakeVerbs>(provider);
  Pair pair = tcp_pair(options);
  VerbsUpgrades both = upgrade_both(*fake, std::move(pair.a), std::move(pair.b), options);
  if (!both.first || !both.second || !both.first->upgraded()) throw std::runtime_error("it is still tcp");
  pair.a = std::move(both.first->link);
  pair.b = std::move(both.second->link);
  pair.freeze_b = [fake, freeze_tcp = std::move(pair.freeze_b)] {
    fake->freeze();
    freeze_tcp();
  };
  constexpr size_t kInPayload = 100;  // behind the headers of chunk and frame
  pair.damage_next = [fake] { fake->damage_next_send(kInPayload); };
  pair.surroundings = std::make_shared<std::vector<std::shared_ptr<void>>>(
      std::initializer_list<std::shared_ptr<void>>{pair.surroundings, fake});
  return pair;
}
Pair verbs_uc_pair(const LinkOptions& options) {
  return verbs_pair(options, {});
}
Pair verbs_rc_pair(const LinkOptions& options) {
  return verbs_pair(options, {.thunderbolt = false});
}

Pair shaped(Pair pair, const LinkOptions& options) {
  pair.a =
      make_shaped_link(std::move(pair.a), {.latency = milliseconds(1), .bytes_per_second = 2e9}, options);
  pair.b =
      make_shaped_link(std::move(pair.b), {.latency = milliseconds(1), .bytes_per_second = 2e9}, options);
  return pair;
}

struct Kind {
  const char* name;
  Pair (*make)(const LinkOptions&);
};

class LinkConformance : public testing::TestWithParam<Kind> {
 protected:
  Pair make(const LinkOptions& options = {}) { return GetParam().make(options); }
};

Buffer filled(Link& link, size_t size, uint32_t seed) {
  Buffer buffer = link.allocate(size).value();
  std::minstd_rand random(seed + 1);
  for (size_t i = 0; i < size; i += 64) buffer.data()[i] = static_cast<std::byte>(random());
  for (size_t i = 0; i < size; ++i) {
    if (i % 64 != 0) buffer.data()[i] = static_cast<std::byte>(i);
  }
  return buffer;
}

bool same_bytes(const Buffer& left, const Buffer& right) {
  return left.size() == right.size() &&
         (left.size() == 0 || std::memcmp(left.data(), right.data(), left.size()) == 0);
}

Frame receive_one(Link& link, uint8_t channel = 0) {
  auto frame = link.receive(channel, in(kPatience));
  if (!frame) throw std::runtime_error(frame.error().text());
  if (!*frame) throw std::runtime_error("nothing came");
  return std::move(**frame);
}

Error receive_error(Link& link) {
  while (true) {
    auto frame = link.receive(0, in(kPatience));
    if (!frame) return frame.error();
    if (!*frame) throw std::runtime_error("neither a frame nor an error came");
  }
}

TEST_P(LinkConformance, FramesArriveWholeAndInOrderAtEverySize) {
  Pair pair = make();
  const std::vector<size_t> sizes = {0,    1,      31,     32,      33,        4095,     4096,
                                     4097, 65'535, 65'536, 1 << 20, 5'000'000, 64 << 20, 3};
  auto sender = std::async(std::launch::async, [&] {
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (!pair.a->send({0, i, filled(*pair.a, sizes[i], static_cast<uint32_t>(i))})) return false;
    }
    return true;
  });
  for (size_t i = 0; i < sizes.size(); ++i) {
    Frame frame = receive_one(*pair.b);
    EXPECT_EQ(frame.step, i);
    EXPECT_TRUE(same_bytes(frame.payload, filled(*pair.b, sizes[i], static_cast<uint32_t>(i)))) << sizes[i];
  }
  EXPECT_TRUE(sender.get());
}

TEST_P(LinkConformance, ManySmallFramesKeepTheirOrderPerChannel) {
  Pair pair = make();
  constexpr uint64_t kFrames = 2000;
  auto sender = std::async(std::launch::async, [&] {
    for (uint64_t i = 0; i < kFrames; ++i) {
      if (!pair.a->send({static_cast<uint8_t>(i % 2), i, filled(*pair.a, i % 300, 1)})) return false;
    }
    return true;
  });
  for (uint64_t i = 1; i < kFrames; i += 2) EXPECT_EQ(receive_one(*pair.b, 1).step, i);
  for (uint64_t i = 0; i < kFrames; i += 2) EXPECT_EQ(receive_one(*pair.b, 0).step, i);
  EXPECT_TRUE(sender.get());
}

TEST_P(LinkConformance, ReceiveReturnsNothingAtItsDeadline) {
  Pair pair = make();
  auto frame = pair.a->receive(0, in(milliseconds(10)));
  ASSERT_TRUE(frame) << frame.error().text();
  EXPECT_FALSE(frame->has_value());
}

TEST_P(LinkConformance, ASenderIsHeldBackUntilTheReceiverTakes) {
  Pair pair = make({.window_units = 8});
  uint64_t sent = 0;
  while (true) {
    auto result = pair.a->send({0, sent, filled(*pair.a, 4000, 1)}, in(milliseconds(300)));
    if (!result) {
      EXPECT_EQ(result.error().code, ErrorCode::timeout) << result.error().text();
      break;
    }
    ++sent;
    ASSERT_LT(sent, 200u) << "nothing held the sender back";
  }
  EXPECT_GE(sent, 8u);
  for (uint64_t i = 0; i < sent; ++i) EXPECT_EQ(receive_one(*pair.b).step, i);
  EXPECT_TRUE(pair.a->send({0, sent, Buffer()}, in(kPatience)));
  EXPECT_EQ(receive_one(*pair.b).step, sent);
}

TEST_P(LinkConformance, BothSidesExchangeMoreThanAnySocketHolds) {
  Pair pair = make();
  constexpr size_t kBytes = 48 << 20;
  auto other = std::async(std::launch::async, [&] {
    bool same = true;
    for (uint32_t round = 0; round < 2; ++round) {
      auto got = pair.b->exchange({2, round, filled(*pair.b, kBytes, round)}, in(kPatience));
      same = same && got && same_bytes(got->payload, filled(*pair.b, kBytes, round + 10));
    }
    return same;
  });
  for (uint32_t round = 0; round < 2; ++round) {
    auto got = pair.a->exchange({2, round, filled(*pair.a, kBytes, round + 10)}, in(kPatience));
    ASSERT_TRUE(got) << got.error().text();
    EXPECT_TRUE(same_bytes(got->payload, filled(*pair.a, kBytes, round)));
  }
  EXPECT_TRUE(other.get());
}

TEST_P(LinkConformance, AThreadMayReceiveWhileAnotherSends) {
  Pair pair = make({.window_units = 64});
  constexpr uint64_t kFrames = 500;
  auto echo = std::async(std::launch::async, [&] {
    for (uint64_t i = 0; i < kFrames; ++i) {
      Frame frame = receive_one(*pair.b);
      if (!pair.b->send(std::move(frame), in(kPatience))) return false;
    }
    return true;
  });
  auto sender = std::async(std::launch::async, [&] {
    for (uint64_t i = 0; i < kFrames; ++i) {
      if (!pair.a->send({0, i, filled(*pair.a, 20'000, 1)}, in(kPatience))) return false;
    }
    return true;
  });
  for (uint64_t i = 0; i < kFrames; ++i) EXPECT_EQ(receive_one(*pair.a).step, i);
  EXPECT_TRUE(sender.get());
  EXPECT_TRUE(echo.get());
}

TEST_P(LinkConformance, AGoodbyeComesAfterTheLastFrameAndIsNoLoss) {
  Pair pair = make();
  ASSERT_TRUE(pair.a->send({0, 7, filled(*pair.a, 3 << 20, 5)}));
  auto closed = std::async(std::launch::async, [&] { return pair.a->close(in(kPatience)); });
  EXPECT_EQ(receive_one(*pair.b).step, 7u);
  EXPECT_EQ(receive_error(*pair.b).code, ErrorCode::cancelled);
  auto late = pair.b->send({0, 8, Buffer()});
  for (TimePoint end = in(kPatience); late && std::chrono::steady_clock::now() < end;) {
    late = pair.b->send({0, 8, Buffer()});  // a shaped Link learns of it when the frame before is due
  }
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::cancelled);
  auto result = closed.get();
  EXPECT_TRUE(result) << result.error().text();
}

TEST_P(LinkConformance, AnEndThatVanishesWithoutGoodbyeIsLost) {
  Pair pair = make();
  ASSERT_TRUE(pair.a->send({0, 1, Buffer()}));
  EXPECT_EQ(receive_one(*pair.b).step, 1u);
  pair.a->abort();
  pair.a.reset();
  EXPECT_EQ(receive_error(*pair.b).code, ErrorCode::unavailable);
}

TEST_P(LinkConformance, ACutIsALossOnBothSides) {
  Pair pair = make();
  pair.cut();
  EXPECT_EQ(receive_error(*pair.a).code, ErrorCode::unavailable);
  EXPECT_EQ(receive_error(*pair.b).code, ErrorCode::unavailable);
}

TEST_P(LinkConformance, ASilentPeerIsLostAfterALease) {
  Pair pair = make();
  ASSERT_TRUE(pair.a->send({0, 1, Buffer()}));
  EXPECT_EQ(receive_one(*pair.b).step, 1u);
  pair.freeze_b();
  TimePoint start = std::chrono::steady_clock::now();
  Error error = receive_error(*pair.a);
  EXPECT_EQ(error.code, ErrorCode::unavailable) << error.text();
  EXPECT_NE(error.message.find("silent"), std::string::npos) << error.message;
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(limits::kLeaseMs) + seconds(5));
}

TEST_P(LinkConformance, ASilentPeerIsLostHoweverMuchWeTellIt) {
  Pair pair = make({.heartbeat = milliseconds(100), .lease = milliseconds(800)});
  pair.freeze_b();
  Result<> sent;
  for (TimePoint end = in(kPatience); sent && std::chrono::steady_clock::now() < end;) {
    sent = pair.a->send({0, 1, filled(*pair.a, 10, 1)}, end);
    std::this_thread::sleep_for(milliseconds(20));
  }
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::unavailable) << sent.error().text();
}

TEST_P(LinkConformance, AnIdlePeerIsNotLost) {
  Pair pair = make({.heartbeat = milliseconds(50), .lease = milliseconds(1000)});
  std::this_thread::sleep_for(milliseconds(2500));  // nobody calls the Links
  ASSERT_TRUE(pair.a->send({0, 1, Buffer()}));
  EXPECT_EQ(receive_one(*pair.b).step, 1u);
}

TEST_P(LinkConformance, ADamagedByteIsNeverDelivered) {
  Pair pair = make();
  if (!pair.damage_next) GTEST_SKIP() << "nothing damages bytes on their way";
  ASSERT_TRUE(pair.a->send({0, 1, filled(*pair.a, 1000, 1)}));
  EXPECT_EQ(receive_one(*pair.b).step, 1u);
  pair.damage_next();
  ASSERT_TRUE(pair.a->send({0, 2, filled(*pair.a, 1000, 2)}));
  Error error = receive_error(*pair.b);
  EXPECT_EQ(error.code, ErrorCode::malformed) << error.text();
  EXPECT_NE(receive_error(*pair.a).code, ErrorCode::cancelled);
}

TEST_P(LinkConformance, AFrameOverTheLimitIsRefusedAndTheLinkLives) {
  Pair pair = make();
  auto buffer = pair.a->allocate(limits::kMaxFrameBytes + 1);
  ASSERT_FALSE(buffer);
  EXPECT_EQ(buffer.error().code, ErrorCode::limit_exceeded);
  ASSERT_TRUE(pair.a->send({0, 1, Buffer()}));
  EXPECT_EQ(receive_one(*pair.b).step, 1u);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, LinkConformance,
    testing::Values(Kind{"memory", memory_pair}, Kind{"tcp", tcp_pair}, Kind{"shm", shm_pair},
                    Kind{"verbs_uc", verbs_uc_pair}, Kind{"verbs_rc", verbs_rc_pair},
                    Kind{"shaped_memory",
                         [](const LinkOptions& options) { return shaped(memory_pair(options), options); }},
                    Kind{"shaped_tcp",
                         [](const LinkOptions& options) { return shaped(tcp_pair(options), options); }}),
    [](const testing::TestParamInfo<Kind>& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace shoal::link
