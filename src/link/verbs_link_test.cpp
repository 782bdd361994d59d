// Links over the fake provider: how two sides come to one or stay with tcp, and what becomes of lost, damaged
// and failed SENDs. What every Link must do is in link_test.cpp.
#include "link/verbs_link.h"

#include <cstring>
#include <future>
#include <gtest/gtest.h>

#include "link/fake_verbs.h"
#include "link/memory_link.h"
#include "link/verbs_bootstrap.h"

namespace shoal::link {
namespace {

constexpr Duration kPatience = seconds(30);
TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

const LinkOptions kQuick{.heartbeat = milliseconds(50), .lease = milliseconds(1000)};

struct VerbsPair {
  std::unique_ptr<Link> a;
  std::unique_ptr<Link> b;
};
VerbsPair connected(const FakeVerbs& fake, const LinkOptions& options = kQuick) {
  MemoryLinks below = make_memory_links(options);
  VerbsUpgrades both = upgrade_both(fake, std::move(below.first), std::move(below.second), options);
  EXPECT_TRUE(both.first && both.first->upgraded() && both.second && both.second->upgraded());
  return {std::move(both.first->link), std::move(both.second->link)};
}

Result<> send_numbered(Link& link, uint64_t step, size_t bytes, TimePoint deadline = in(kPatience)) {
  Buffer buffer = link.allocate(bytes).value();
  for (size_t i = 0; i < bytes; ++i) buffer.data()[i] = static_cast<std::byte>(i * 7 + step);
  return link.send({0, step, std::move(buffer)}, deadline);
}
bool is_numbered(const Frame& frame, uint64_t step) {
  for (size_t i = 0; i < frame.payload.size(); ++i) {
    if (frame.payload.data()[i] != static_cast<std::byte>(i * 7 + step)) return false;
  }
  return frame.step == step;
}

struct Provider {
  const char* name;
  FakeVerbsOptions options;
};
const Provider kThunderbolt{"thunderbolt", {}};
const Provider kReliable{"fabric_rc", {.thunderbolt = false}};
const Provider kUnreliable{"fabric_uc", {.thunderbolt = false, .reliable = false}};

class OverEveryProvider : public testing::TestWithParam<Provider> {};
INSTANTIATE_TEST_SUITE_P(Providers, OverEveryProvider, testing::Values(kThunderbolt, kReliable, kUnreliable),
                         [](const auto& provider) { return std::string(provider.param.name); });

TEST_P(OverEveryProvider, ALargeMessageGoesThroughInChunksBothWaysAtOnce) {
  FakeVerbs fake(GetParam().options);
  VerbsPair pair = connected(fake);
  constexpr size_t kBytes = 9'000'001;
  auto other = std::async(std::launch::async, [&] { return send_numbered(*pair.b, 2, kBytes).has_value(); });
  ASSERT_TRUE(send_numbered(*pair.a, 1, kBytes));
  auto at_a = pair.a->receive(0, in(kPatience));
  auto at_b = pair.b->receive(0, in(kPatience));
  EXPECT_TRUE(other.get());
  ASSERT_TRUE(at_a && *at_a && at_b && *at_b);
  EXPECT_TRUE((**at_a).payload.size() == kBytes && is_numbered(**at_a, 2));
  EXPECT_TRUE((**at_b).payload.size() == kBytes && is_numbered(**at_b, 1));
  EXPECT_EQ(fake.unmatched_sends(), 0u);
  EXPECT_GT(fake.delivered_sends(), 2 * kBytes / (64 << 10));
}

TEST_P(OverEveryProvider, NothingOfALinkIsLeftBehind) {
  FakeVerbs fake(GetParam().options);
  {
    VerbsPair pair = connected(fake);
    EXPECT_EQ(fake.open_queue_pairs(), 2u);
    auto closed = std::async(std::launch::async, [&] { return pair.a->close(in(kPatience)).has_value(); });
    EXPECT_TRUE(pair.b->close(in(kPatience)));
    EXPECT_TRUE(closed.get());
  }
  EXPECT_EQ(fake.open_queue_pairs(), 0u);
}

TEST_P(OverEveryProvider, ADamagedByteEndsTheLinkAndIsNeverDelivered) {
  uint64_t ended = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    FakeVerbsOptions options = GetParam().options;
    options.seed = seed;
    options.damage = 0.05;
    FakeVerbs fake(options);
    VerbsPair pair = connected(fake);
    for (uint64_t i = 0; i < 2000; ++i) {
      auto sent = send_numbered(*pair.a, i, 400, in(milliseconds(200)));
      auto got = sent ? pair.b->receive(0, in(kPatience)) : pair.b->receive(0, TimePoint{});
      if (!got) {
        EXPECT_TRUE(got.error().code == ErrorCode::malformed || got.error().code == ErrorCode::unavailable);
        ++ended;
        break;
      }
      if (!sent) break;
      ASSERT_TRUE(*got && is_numbered(**got, i));
    }
  }
  EXPECT_GT(ended, 0u);
}

TEST_P(OverEveryProvider, AFailedRequestIsALossOnBothSides) {
  FakeVerbs fake(GetParam().options);
  VerbsPair pair = connected(fake);
  fake.fail_next_send();
  (void)send_numbered(*pair.a, 1, 100);  // may hear of it itself
  auto at_a = pair.a->receive(0, in(kPatience));
  auto at_b = pair.b->receive(0, in(kPatience));
  ASSERT_FALSE(at_a);
  ASSERT_FALSE(at_b);
  EXPECT_EQ(at_a.error().code, ErrorCode::unavailable);
  EXPECT_EQ(at_b.error().code, ErrorCode::unavailable);
  // Whose SEND it was names the device; the other hears that the peer has ended.
  std::string both = at_a.error().message + ", " + at_b.error().message;
  EXPECT_NE(both.find("rdma_en"), std::string::npos) << both;
}

TEST(VerbsLoss, ADroppedSendIsAGapThatIsNeverBridged) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    FakeVerbs fake({.seed = seed, .drop = 0.02});
    VerbsPair pair = connected(fake);
    uint64_t arrived = 0;
    std::optional<Error> end;
    for (uint64_t i = 0; i < 5000 && !end; ++i) {
      (void)send_numbered(*pair.a, i, 100, in(milliseconds(500)));
      auto frame = pair.b->receive(0, i % 50 == 49 ? in(milliseconds(1)) : TimePoint{});
      if (!frame) end = frame.error();
      if (frame && *frame) {
        ASSERT_TRUE(is_numbered(**frame, arrived));
        ++arrived;
      }
    }
    ASSERT_TRUE(end) << "seed " << seed << ": " << arrived << " arrived and nobody missed any";
    EXPECT_EQ(end->code, ErrorCode::unavailable) << end->message;
  }
}

TEST(VerbsLoss, TheLastSendBeforeASilenceIsMissedToo) {
  FakeVerbs fake;
  VerbsPair pair = connected(fake);
  ASSERT_TRUE(send_numbered(*pair.a, 1, 100));
  ASSERT_TRUE(pair.b->receive(0, in(kPatience)));
  fake.drop_next_sends(1);
  ASSERT_TRUE(send_numbered(*pair.a, 2, 100));
  auto frame = pair.b->receive(0, in(kPatience));
  ASSERT_FALSE(frame);
  EXPECT_EQ(frame.error().code, ErrorCode::unavailable);
  EXPECT_NE(frame.error().message.find("never came"), std::string::npos) << frame.error().message;
}

TEST(VerbsLoss, AGoodbyeWhoseLastFramesWereDroppedIsALoss) {
  FakeVerbs fake;
  VerbsPair pair = connected(fake);
  fake.drop_next_sends(100);
  auto closed = std::async(std::launch::async, [&] { return pair.a->close(in(kPatience)); });
  auto frame = pair.b->receive(0, in(kPatience));
  ASSERT_FALSE(frame);
  EXPECT_EQ(frame.error().code, ErrorCode::unavailable) << frame.error().message;
  closed.get();
}

TEST(VerbsLoss, OfTwoLinksEachHasItsOwnEnd) {
  FakeVerbs fake;
  VerbsPair one = connected(fake);
  VerbsPair two = connected(fake);
  one.a->abort();
  EXPECT_FALSE(one.b->receive(0, in(kPatience)));
  ASSERT_TRUE(send_numbered(*two.a, 5, 3000));
  auto frame = two.b->receive(0, in(kPatience));
  ASSERT_TRUE(frame && *frame);
  EXPECT_TRUE(is_numbered(**frame, 5));
}

class Refusal : public testing::Test {
 protected:
  // Both sides have tcp still, and it works.
  static void expect_tcp(VerbsUpgrades& both, const std::string& why) {
    ASSERT_TRUE(both.first) << both.first.error().text();
    ASSERT_TRUE(both.second) << both.second.error().text();
    ASSERT_TRUE(both.first->refusal && both.second->refusal);
    EXPECT_NE(both.first->refusal->text().find(why), std::string::npos) << both.first->refusal->text();
    EXPECT_NE(both.second->refusal->text().find(why), std::string::npos) << both.second->refusal->text();
    EXPECT_NE(both.first->refusal->text().find("tcp is used instead"), std::string::npos);
    EXPECT_TRUE(send_numbered(*both.first->link, 9, 5000));
    auto frame = both.second->link->receive(0, in(kPatience));
    ASSERT_TRUE(frame && *frame);
    EXPECT_TRUE(is_numbered(**frame, 9));
  }
  static VerbsUpgrades attempt(const FakeVerbs& fake) {
    MemoryLinks below = make_memory_links();
    return upgrade_both(fake, std::move(below.first), std::move(below.second));
  }
};

TEST_F(Refusal, OfTheEleventhQueuePairLeavesTcp) {
  FakeVerbs fake;
  std::vector<VerbsPair> links;
  for (int i = 0; i < 10; ++i) links.push_back(connected(fake));
  VerbsUpgrades both = attempt(fake);
  expect_tcp(both, "all queue pairs of the device are taken");
  links.pop_back();
  links.push_back(connected(fake));  // one was free again
}

TEST_F(Refusal, OfAMemoryRegionLeavesTcp) {
  FakeVerbs fake({.regions = 1});
  VerbsUpgrades both = attempt(fake);
  ASSERT_TRUE(both.first && both.second);
  ASSERT_FALSE(both.first->upgraded() || both.second->upgraded());
  EXPECT_EQ(fake.open_queue_pairs(), 0u);
}

TEST_F(Refusal, OfATransitionLeavesTcp) {
  FakeVerbs fake;
  fake.refuse_next("ibv_modify_qp");
  VerbsUpgrades both = attempt(fake);
  expect_tcp(both, "does not become INIT");
  EXPECT_EQ(fake.open_queue_pairs(), 0u);
}

TEST_F(Refusal, OfARecvLeavesTcp) {
  FakeVerbs fake;
  fake.refuse_next("post_recv");
  VerbsUpgrades both = attempt(fake);
  expect_tcp(both, "a RECV was refused");
}

TEST_F(Refusal, ForWantOfAnActivePortLeavesTcp) {
  FakeVerbs fake;
  fake.set_down(1);
  VerbsUpgrades both = attempt(fake);
  expect_tcp(both, "rdma_en1 is down");
}

TEST_F(Refusal, ForWantOfALibraryLeavesTcp) {
  FakeVerbs fake;
  MemoryLinks below = make_memory_links();
  auto other = std::async(std::launch::async, [&] {
    return upgrade_to_verbs(std::move(below.second),
                            VerbsLibrary::load_file("libabsent.so.9", VerbsRules::fabric()), "10.0.0.2",
                            in(kPatience));
  });
  auto own = upgrade_to_verbs(std::move(below.first), fake.library(), "10.0.0.1", in(kPatience));
  VerbsUpgrades both{std::move(own), other.get()};
  expect_tcp(both, "libabsent.so.9");
}

TEST_F(Refusal, ADeviceThatGrantsLessDepthGetsFewerSlots) {
  FakeVerbs fake({.depth = 20});  // frames: room for 4 slots of 4
  VerbsPair pair = connected(fake);
  auto sent = std::async(std::launch::async, [&] { return send_numbered(*pair.a, 3, 3 << 20).has_value(); });
  auto frame = pair.b->receive(0, in(kPatience));
  ASSERT_TRUE(frame && *frame);
  EXPECT_TRUE(is_numbered(**frame, 3));
  EXPECT_TRUE(sent.get());
}

TEST(VerbsUpgrade, WithoutAPeerThatWantsItEndsAtTheDeadline) {
  FakeVerbs fake;
  MemoryLinks below = make_memory_links();
  auto result = upgrade_to_verbs(std::move(below.first), fake.library(), "10.0.0.1", in(milliseconds(50)));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::timeout);
}

TEST(VerbsMessage, EveryTruncationAndNonsenseIsRefused) {
  VerbsMessage message;
  message.refusal = Error{ErrorCode::unavailable, "why", "what to do"};
  message.endpoint = {7, 101, 3, {}, 1, 32};
  Bytes whole = encode_verbs_message(message);
  auto decoded = decode_verbs_message(whole);
  ASSERT_TRUE(decoded) << decoded.error().text();
  EXPECT_EQ(decoded->endpoint.number, 101u);
  EXPECT_EQ(decoded->refusal->text(), message.refusal->text());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(decode_verbs_message(ByteView(whole).first(size))) << size;
  }
  message.terms.slot_bytes = 5000;
  EXPECT_FALSE(decode_verbs_message(encode_verbs_message(message)));
  message.terms = {static_cast<verbs::QueuePairType>(9), verbs::Mtu::bytes_1024, 4096, true};
  EXPECT_FALSE(decode_verbs_message(encode_verbs_message(message)));
}

}  // namespace
}  // namespace shoal::link
