// A peer that went mad: chunks that no honest one sends, put into the queue pair by hand.
#include "link/verbs_stream.h"

#include <cstring>
#include <functional>
#include <future>
#include <gtest/gtest.h>

#include "link/crc32c.h"
#include "link/fake_verbs.h"
#include "link/memory_link.h"
#include "link/verbs_bootstrap.h"

namespace shoal::link {
namespace {

// As in verbs_stream.h.
struct Chunk {
  uint32_t magic = 0x31564853;
  uint32_t sequence = 0;
  uint32_t used = 0;
  uint32_t returned = 0;
  uint64_t nonce = 0;
  uint32_t zero = 0;
  uint32_t crc = 0;
};

VerbsIntroduction introduction(const FakeVerbs& fake, Link& tcp, const char* address) {
  Result<std::shared_ptr<const VerbsDevice>> device =
      std::make_shared<const VerbsDevice>(VerbsDevice::find(fake.library(), address).value());
  return introduce_verbs(tcp, device, std::chrono::steady_clock::now() + seconds(30)).value();
}

class MadPeer : public testing::Test {
 protected:
  MadPeer() {
    auto other =
        std::async(std::launch::async, [&] { return introduction(fake, *below.second, "10.0.0.2"); });
    VerbsIntroduction own = introduction(fake, *below.first, "10.0.0.1");
    VerbsIntroduction theirs = other.get();
    peer = std::move(theirs.queue);
    nonce = own.own_nonce;
    stream = std::make_unique<VerbsStream>(std::move(own.queue), own.peer_slot_count,
                                           VerbsStream::Nonces{own.own_nonce, own.peer_nonce}, "the peer",
                                           1024, BufferPool::create(1 << 20));
  }
  Result<bool> after(Chunk chunk, ByteView bytes = {}, bool sealed = true) {
    std::span<std::byte> slot = peer->free_slot();
    if (sealed) chunk.crc = crc32c(ByteView(reinterpret_cast<const std::byte*>(&chunk), sizeof(chunk) - 4));
    std::memcpy(slot.data(), &chunk, sizeof(chunk));
    if (!bytes.empty()) std::memcpy(slot.data() + sizeof(chunk), bytes.data(), bytes.size());
    EXPECT_TRUE(peer->send_slot(sizeof(chunk) + bytes.size()));
    return stream->receive_ready();
  }
  Chunk honest(uint32_t sequence = 0) const { return {.sequence = sequence, .nonce = nonce}; }

  FakeVerbs fake;
  MemoryLinks below = make_memory_links();
  std::unique_ptr<VerbsQueue> peer;
  std::unique_ptr<VerbsStream> stream;
  uint64_t nonce = 0;
};

TEST_F(MadPeer, AnHonestChunkIsTaken) {
  auto moved = after(honest());
  ASSERT_TRUE(moved) << moved.error().text();
  EXPECT_TRUE(*moved);
  EXPECT_EQ(stream->chunks_received(), 1u);
}

TEST_F(MadPeer, AHeaderWithAWrongCrcIsDamaged) {
  auto moved = after(honest(), {}, false);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ErrorCode::malformed);
}

TEST_F(MadPeer, AGapIsALoss) {
  ASSERT_TRUE(after(honest()));
  auto moved = after(honest(2));
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ErrorCode::unavailable);
}

TEST_F(MadPeer, AChunkOfAnotherLinkIsRefused) {
  Chunk chunk = honest();
  chunk.nonce ^= 1;
  auto moved = after(chunk);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ErrorCode::malformed);
}

TEST_F(MadPeer, MoreBytesThanTheSlotHasAreRefused) {
  Chunk chunk = honest();
  for (uint32_t used : {uint32_t{16 << 10}, UINT32_MAX}) {
    chunk.used = used;
    auto moved = after(chunk);
    ASSERT_FALSE(moved);
    EXPECT_EQ(moved.error().code, ErrorCode::malformed);
  }
}

TEST_F(MadPeer, CreditThatWasNeverUsedIsRefused) {
  Chunk chunk = honest();
  chunk.returned = 1;
  auto moved = after(chunk);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ErrorCode::malformed);
}

TEST_F(MadPeer, AFrameThatIsNoneIsRefused) {
  Chunk chunk = honest();
  chunk.used = 64;
  auto moved = after(chunk, Bytes(64, std::byte{5}));
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ErrorCode::malformed);
}

TEST_F(MadPeer, AFrameWithoutCreditIsRefused) {
  Chunk chunk = honest();
  HeaderBytes raw = encode_header({FrameType::data, 0, 0, 0, 0, 0});
  chunk.used = kHeaderBytes;
  auto moved = after(chunk, raw);  // before we granted any
  ASSERT_FALSE(moved);
  EXPECT_NE(moved.error().message.find("without credit"), std::string::npos) << moved.error().message;
}

TEST_F(MadPeer, ASenderStopsOneRecvShortOfWhatThePeerHasPosted) {
  // Frames for ever, and nobody who returns credit.
  ASSERT_TRUE(stream->send_ready());
  Chunk grant = honest();
  HeaderBytes raw = encode_header({FrameType::credit, 0, 1000, 0, 0, 0});
  grant.used = kHeaderBytes;
  ASSERT_TRUE(after(grant, raw));
  auto pool = BufferPool::create(1 << 30);
  while (stream->queues().has_room(0)) stream->queues().push({0, 0, pool->allocate(200'000).value()});
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(stream->send_ready());
    ASSERT_TRUE(stream->receive_ready());
  }
  EXPECT_EQ(fake.delivered_sends(), 1u + peer->slot_count() - 1);
  EXPECT_EQ(fake.unmatched_sends(), 0u);
}

}  // namespace
}  // namespace shoal::link
