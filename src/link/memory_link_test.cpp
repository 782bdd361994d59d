// What a misbehaving wire makes of a Link.
#include "link/memory_link.h"

#include <gtest/gtest.h>

namespace shoal::link {
namespace {

// Sends numbered frames until the Link is lost; how many arrived, always 0, 1, 2, … before the end, and the
// Error.
struct Outcome {
  uint64_t arrived = 0;
  Error error;
};
Outcome send_until_lost(const WireFaults& faults) {
  MemoryLinks links = make_memory_links({.window_units = 64}, faults);
  Outcome outcome;
  for (uint64_t i = 0; i < 100'000; ++i) {
    Buffer buffer = links.first->allocate(100).value();
    std::memset(buffer.data(), 7, buffer.size());
    auto sent =
        links.first->send({0, i, std::move(buffer)}, std::chrono::steady_clock::now() + milliseconds(50));
    while (true) {
      auto frame = links.second->receive(0, TimePoint{});
      if (!frame) {
        outcome.error = frame.error();
        return outcome;
      }
      if (!*frame) break;
      EXPECT_EQ((**frame).step, outcome.arrived);
      ++outcome.arrived;
    }
    if (!sent && sent.error().code == ErrorCode::timeout) break;  // only its credit was lost
  }
  return outcome;
}

TEST(MisbehavingWire, ADroppedFrameIsAGapThatIsNeverBridged) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Outcome outcome = send_until_lost({.seed = seed, .drop = 0.02});
    EXPECT_NE(outcome.error.message, "") << "seed " << seed << ", " << outcome.arrived << " arrived";
  }
}

TEST(MisbehavingWire, SwappedFramesAreNeverDelivered) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Outcome outcome = send_until_lost({.seed = seed, .swap = 0.5, .delay = microseconds(300)});
    EXPECT_NE(outcome.error.message, "") << "seed " << seed << ", " << outcome.arrived << " arrived";
  }
}

TEST(MisbehavingWire, DamagedFramesAreNeverDelivered) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Outcome outcome = send_until_lost({.seed = seed, .damage = 0.02});
    EXPECT_NE(outcome.error.message, "") << "seed " << seed << ", " << outcome.arrived << " arrived";
  }
}

TEST(MisbehavingWire, TheSameSeedMisbehavesTheSameWay) {
  const WireFaults faults{.seed = 5, .drop = 0.01};
  EXPECT_EQ(send_until_lost(faults).arrived, send_until_lost(faults).arrived);
}

TEST(MisbehavingWire, ACutComesAfterTheBytesItAllows) {
  Outcome outcome = send_until_lost({.cut_after_bytes = 1000});
  EXPECT_EQ(outcome.arrived, 10u);
  EXPECT_EQ(outcome.error.code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace shoal::link
