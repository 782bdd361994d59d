#include "link/frame.h"

#include <gtest/gtest.h>
#include <random>

#include "base/limits.h"
#include "link/crc32c.h"

namespace shoal::link {
namespace {

Bytes random_bytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(Crc32c, MatchesTheVectorsOfRfc3720) {
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c(Bytes(32)), 0x8a9136aau);
  EXPECT_EQ(crc32c(Bytes(32, std::byte{0xff})), 0x62a8ab43u);
  Bytes rising(32);
  for (size_t i = 0; i < 32; ++i) rising[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(Crc32c, InstructionAndTableAgreeAtEverySizeAroundTheLanes) {
  Bytes bytes = random_bytes(20'000, 7);
  for (size_t size : {0, 1, 7, 8, 9, 63, 1024, 3071, 3072, 3073, 6143, 6144, 6145, 9217, 19'999}) {
    for (size_t offset : {0, 1}) {
      ByteView part = ByteView(bytes).subspan(offset, size);
      EXPECT_EQ(crc32c(part), crc32c_table(part)) << size << " bytes at " << offset;
    }
  }
}

TEST(FrameHeader, ComesBackAsItWasEncoded) {
  FrameHeader header{FrameType::data, 3, 0x1122334455667788, 9, 77, 0xabcdef01};
  auto decoded = decode_header(encode_header(header));
  ASSERT_TRUE(decoded) << decoded.error().text();
  EXPECT_EQ(decoded->type, header.type);
  EXPECT_EQ(decoded->channel, header.channel);
  EXPECT_EQ(decoded->step, header.step);
  EXPECT_EQ(decoded->sequence, header.sequence);
  EXPECT_EQ(decoded->length, header.length);
  EXPECT_EQ(decoded->payload_crc, header.payload_crc);
}

TEST(FrameHeader, EveryFlippedBitIsNoticed) {
  HeaderBytes raw = encode_header({FrameType::data, 1, 5, 9, 77, 3});
  for (size_t bit = 0; bit < kHeaderBytes * 8; ++bit) {
    HeaderBytes damaged = raw;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    auto decoded = decode_header(damaged);
    ASSERT_FALSE(decoded) << "bit " << bit;
    EXPECT_EQ(decoded.error().code, ErrorCode::malformed);
  }
}

TEST(FrameHeader, RefusesWhatIsOutOfRangeThoughTheCrcIsRight) {
  EXPECT_FALSE(decode_header(encode_header({static_cast<FrameType>(9), 0, 0, 0, 0, 0})));
  EXPECT_FALSE(decode_header(encode_header({FrameType::data, kChannels, 0, 0, 0, 0})));
  EXPECT_FALSE(decode_header(encode_header({FrameType::data, 0, 0, 0, limits::kMaxFrameBytes + 1, 0})));
  EXPECT_FALSE(decode_header(encode_header({FrameType::credit, 0, 1, 0, 4, 0})));
}

TEST(BufferPool, BlocksAreAlignedAndUsedAgain) {
  auto pool = BufferPool::create(1 << 20);
  std::byte* first = nullptr;
  {
    Buffer buffer = pool->allocate(5000).value();
    first = buffer.data();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 4096, 0u);
    EXPECT_EQ(buffer.size(), 5000u);
    EXPECT_EQ(pool->used_bytes(), 8192u);
  }
  EXPECT_EQ(pool->used_bytes(), 0u);
  EXPECT_EQ(pool->allocate(8192).value().data(), first);
}

TEST(BufferPool, RefusesWhatIsOverItsLimit) {
  auto pool = BufferPool::create(16384);
  Buffer held = pool->allocate(16384).value();
  auto more = pool->allocate(1);
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, ErrorCode::limit_exceeded);
  EXPECT_EQ(BufferPool::create(UINT64_MAX)->allocate(limits::kMaxFrameBytes + 1).error().code,
            ErrorCode::limit_exceeded);
}

class Queues : public testing::Test {
 protected:
  Frame frame(size_t bytes, uint8_t channel = 0) { return {channel, 1, pool->allocate(bytes).value()}; }
  // Carries frames from one side to the other until neither has any; the number carried.
  static int carry(FrameQueues& from, FrameQueues& to) {
    int count = 0;
    while (auto outgoing = from.next()) {
      auto header = to.open(outgoing->header);
      EXPECT_TRUE(header) << header.error().text();
      if (!header) return count;
      EXPECT_TRUE(to.deliver(*header, std::move(outgoing->payload)));
      ++count;
    }
    return count;
  }
  std::shared_ptr<BufferPool> pool = BufferPool::create(limits::kGiB);
};

TEST_F(Queues, NothingLeavesBeforeTheReceiverGrantsCredit) {
  FrameQueues sender("b", 4);
  FrameQueues receiver("a", 4);
  sender.push(frame(100));
  while (auto outgoing = sender.next()) EXPECT_EQ(outgoing->payload.size(), 0u);  // its own grants only
  EXPECT_FALSE(sender.drained());
}

TEST_F(Queues, CreditBoundsWhatWaitsAtTheReceiver) {
  FrameQueues sender("b", 8);
  FrameQueues receiver("a", 8);
  carry(sender, receiver);
  carry(receiver, sender);
  int sent = 0;
  for (int i = 0; i < 40; ++i) {
    if (sender.has_room(0)) sender.push(frame(10));
    sent += carry(sender, receiver);
  }
  EXPECT_EQ(sent, 8);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(receiver.take(0).has_value());
  EXPECT_FALSE(receiver.take(0).has_value());
  carry(receiver, sender);
  EXPECT_EQ(carry(sender, receiver), 8);
}

TEST_F(Queues, AFrameLargerThanTheWindowPassesAgainAndAgain) {
  FrameQueues sender("b", 2);
  FrameQueues receiver("a", 16);
  carry(sender, receiver);
  carry(receiver, sender);
  for (int i = 0; i < 5; ++i) {
    sender.push(frame(1 << 20));
    EXPECT_EQ(carry(sender, receiver), 1);
    EXPECT_EQ(receiver.take(0).value().payload.size(), size_t{1} << 20);
    carry(receiver, sender);
  }
}

TEST_F(Queues, AFullChannelDoesNotHoldUpAnother) {
  FrameQueues sender("b", 2);
  FrameQueues receiver("a", 2);
  carry(sender, receiver);
  carry(receiver, sender);
  sender.push(frame(5000, 0));
  carry(sender, receiver);
  sender.push(frame(5000, 0));
  EXPECT_EQ(carry(sender, receiver), 0);
  sender.push(frame(10, 1));
  EXPECT_EQ(carry(sender, receiver), 1);
  EXPECT_TRUE(receiver.take(1).has_value());
}

TEST_F(Queues, AFrameWithoutCreditIsRefused) {
  FrameQueues sender("b", 64);
  FrameQueues generous("a", 64);
  FrameQueues strict("a", 64);  // has granted nothing yet
  carry(generous, sender);
  carry(sender, strict);  // credit needs no credit
  sender.push(frame(0));
  auto outgoing = sender.next();
  ASSERT_TRUE(outgoing.has_value());
  auto refused = strict.open(outgoing->header);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::malformed);
  EXPECT_NE(refused.error().message.find("without credit"), std::string::npos) << refused.error().message;
}

TEST_F(Queues, LostAndRepeatedFramesAreNoticedByTheirSequence) {
  FrameQueues sender("b", 8);
  FrameQueues receiver("a", 8);
  auto first = sender.next();
  auto second = sender.next();
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(receiver.open(second->header));
  EXPECT_TRUE(receiver.open(first->header));
  EXPECT_FALSE(receiver.open(first->header));
}

TEST_F(Queues, ADamagedPayloadIsNotDelivered) {
  FrameQueues sender("b", 8);
  FrameQueues receiver("a", 8);
  carry(sender, receiver);
  carry(receiver, sender);
  sender.push(frame(100));
  auto outgoing = sender.next();
  ASSERT_TRUE(outgoing.has_value());
  outgoing->payload.data()[50] ^= std::byte{4};
  auto header = receiver.open(outgoing->header);
  ASSERT_TRUE(header);
  auto delivered = receiver.deliver(*header, std::move(outgoing->payload));
  ASSERT_FALSE(delivered);
  EXPECT_EQ(delivered.error().code, ErrorCode::malformed);
  EXPECT_FALSE(receiver.take(0).has_value());
}

}  // namespace
}  // namespace shoal::link
