// The fake provider itself: every rule that it says it holds its user to, it does.
#include <array>
#include <cerrno>
#include <gtest/gtest.h>

#include "base/memory.h"
#include "link/fake_verbs.h"
#include "link/verbs_device.h"

namespace shoal::link {
namespace {

using verbs::QueuePairState;
using verbs::QueuePairType;

constexpr int kAnyAccess = verbs::kAccessLocalWrite | verbs::kAccessRemoteRead | verbs::kAccessRemoteWrite;

// One end with one of everything, driven through the symbols alone.
class End {
 public:
  End(const FakeVerbs& fake, const char* address, QueuePairType type = QueuePairType::uc, uint32_t depth = 16)
      : library_(fake.library()), device_(VerbsDevice::find(library_, address).value()) {
    domain = library_->alloc_pd(device_.context());
    completions = library_->create_cq(device_.context(), 64, nullptr, nullptr, 0);
    pair = create_pair(type, depth);
    memory = HugeBuffer::allocate(64 << 10, "test").value();
    region = library_->reg_mr(domain, memory.data(), memory.size(), kAnyAccess);
  }
  ~End() {
    if (pair != nullptr) library_->destroy_qp(pair);
    if (region != nullptr) library_->dereg_mr(region);
    library_->destroy_cq(completions);
    library_->dealloc_pd(domain);
  }
  End(const End&) = delete;
  End& operator=(const End&) = delete;

  verbs::QueuePair* create_pair(QueuePairType type, uint32_t depth, uint32_t pieces = 1) {
    verbs::QueuePairCreation creation;
    creation.send_queue = creation.receive_queue = completions;
    creation.capacity = {depth, depth, pieces, pieces, 0};
    creation.type = type;
    return library_->create_qp(domain, &creation);
  }
  int init() {
    verbs::QueuePairAttributes to;
    to.state = QueuePairState::init;
    to.port = 1;
    return modify(to, verbs::kSetPkeyIndex | verbs::kSetPort | verbs::kSetAccess);
  }
  int ready_to_receive(const End& peer) {
    verbs::QueuePairAttributes to;
    to.state = QueuePairState::rtr;
    to.path_mtu = verbs::Mtu::bytes_1024;
    to.destination_number = peer.pair->number;
    to.path.is_global = 1;
    to.path.port = 1;
    to.path.route.hop_limit = 1;
    to.path.route.source_gid_index = 1;
    to.path.route.destination = peer.device_.gid();
    int mask = verbs::kSetPath | verbs::kSetPathMtu | verbs::kSetDestination | verbs::kSetReceivePsn;
    if (reliable()) mask |= verbs::kSetMaxDestinationReads | verbs::kSetMinRnrTimer;
    return modify(to, mask);
  }
  int ready_to_send() {
    verbs::QueuePairAttributes to;
    to.state = QueuePairState::rts;
    int mask = verbs::kSetSendPsn;
    if (reliable())
      mask |= verbs::kSetTimeout | verbs::kSetRetries | verbs::kSetRnrRetries | verbs::kSetMaxReads;
    return modify(to, mask);
  }
  int modify(verbs::QueuePairAttributes& to, int mask) {
    return library_->modify_qp(pair, &to, mask | verbs::kSetState);
  }
  static void connect(End& a, End& b) {
    for (End* end : {&a, &b}) ASSERT_EQ(end->init(), 0);
    ASSERT_EQ(a.ready_to_receive(b), 0);
    ASSERT_EQ(b.ready_to_receive(a), 0);
    for (End* end : {&a, &b}) ASSERT_EQ(end->ready_to_send(), 0);
  }

  verbs::Piece piece(size_t offset, uint32_t bytes) const {
    return {reinterpret_cast<uint64_t>(memory.data() + offset), bytes, region->lkey};
  }
  int send(size_t offset, uint32_t bytes, uint32_t flags = verbs::kSendSignaled,
           uint32_t opcode = verbs::kOpcodeSend) {
    std::array<verbs::Piece, 2> pieces = {piece(offset, bytes), {}};
    verbs::SendRequest request;
    request.pieces = pieces.data();
    request.piece_count = 1;
    request.flags = flags;
    request.opcode = opcode;
    return post(request);
  }
  int post(verbs::SendRequest& request) {
    verbs::SendRequest* refused = nullptr;
    return device_.context()->operations.post_send(pair, &request, &refused);
  }
  int receive(size_t offset, uint32_t bytes) {
    verbs::Piece into = piece(offset, bytes);
    verbs::ReceiveRequest request;
    request.pieces = &into;
    request.piece_count = 1;
    verbs::ReceiveRequest* refused = nullptr;
    return device_.context()->operations.post_receive(pair, &request, &refused);
  }
  // The next completion, or one with an opcode that does not exist.
  verbs::Completion poll() {
    verbs::Completion done;
    done.opcode = UINT32_MAX;
    device_.context()->operations.poll_completions(completions, 1, &done);
    return done;
  }
  bool reliable() const { return pair->type == QueuePairType::rc; }

  verbs::ProtectionDomain* domain;
  verbs::CompletionQueue* completions;
  verbs::QueuePair* pair;
  HugeBuffer memory;
  verbs::MemoryRegion* region;

 private:
  std::shared_ptr<const VerbsLibrary> library_;
  VerbsDevice device_;
};

constexpr FakeVerbsOptions kFabric() {
  FakeVerbsOptions options;
  options.thunderbolt = false;
  return options;
}

TEST(FakeVerbsRules, AnEleventhQueuePairIsBusyAndRcIsUnknownOnThunderbolt) {
  FakeVerbs fake;
  auto library = fake.library();
  End end(fake, "10.0.0.1");
  std::vector<verbs::QueuePair*> more;
  for (int i = 0; i < 9; ++i) more.push_back(end.create_pair(QueuePairType::uc, 16));
  EXPECT_NE(more.back(), nullptr);
  EXPECT_EQ(end.create_pair(QueuePairType::uc, 16), nullptr);
  EXPECT_EQ(errno, EBUSY);
  EXPECT_EQ(end.create_pair(QueuePairType::rc, 16), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  for (verbs::QueuePair* pair : more) library->destroy_qp(pair);
  EXPECT_EQ(end.create_pair(QueuePairType::uc, 100'000), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(end.create_pair(QueuePairType::uc, 16, 2), nullptr) << "two pieces";
}

TEST(FakeVerbsRules, RegionsAreCountedAlignedAndBounded) {
  FakeVerbs fake({.regions = 2, .region_bytes = 1 << 20});
  fake.expect_rule_breaks();
  auto library = fake.library();
  End end(fake, "10.0.0.1");
  HugeBuffer memory = HugeBuffer::allocate(2 << 20, "test").value();
  EXPECT_EQ(library->reg_mr(end.domain, memory.data() + 1, 4096, kAnyAccess), nullptr);
  EXPECT_EQ(library->reg_mr(end.domain, memory.data(), 4096, verbs::kAccessLocalWrite), nullptr);
  EXPECT_EQ(library->reg_mr(end.domain, memory.data(), 2 << 20, kAnyAccess), nullptr);
  EXPECT_EQ(fake.rule_breaks().size(), 3u);
  verbs::MemoryRegion* second = library->reg_mr(end.domain, memory.data(), 4096, kAnyAccess);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(library->reg_mr(end.domain, memory.data(), 4096, kAnyAccess), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(library->dereg_mr(second), EBUSY) << "a queue pair may still write there";
  library->destroy_qp(std::exchange(end.pair, nullptr));
  EXPECT_EQ(library->dereg_mr(second), 0);
}

TEST(FakeVerbsRules, StatesComeInOrderWithTheirWholeMask) {
  FakeVerbs fake;
  fake.expect_rule_breaks();
  End a(fake, "10.0.0.1");
  End b(fake, "10.0.0.2");
  EXPECT_EQ(a.ready_to_receive(b), EINVAL) << "before INIT";
  verbs::QueuePairAttributes init;
  init.state = QueuePairState::init;
  init.port = 1;
  EXPECT_EQ(a.modify(init, verbs::kSetPort), EINVAL) << "no access, no pkey";
  ASSERT_EQ(a.init(), 0);
  EXPECT_EQ(a.ready_to_send(), EINVAL) << "before RTR";
  ASSERT_EQ(a.ready_to_receive(b), 0);
  EXPECT_EQ(a.receive(0, 4096), EINVAL) << "Thunderbolt takes RECVs at RTS";
  EXPECT_EQ(a.send(0, 4096), EINVAL);
  ASSERT_EQ(a.ready_to_send(), 0);
  EXPECT_EQ(a.receive(0, 4096), 0);
  EXPECT_EQ(fake.rule_breaks().size(), 5u);
}

TEST(FakeVerbsRules, AFabricTakesRecvsFromInitOn) {
  FakeVerbs fake(kFabric());
  End a(fake, "10.0.0.1", QueuePairType::rc);
  ASSERT_EQ(a.init(), 0);
  EXPECT_EQ(a.receive(0, 4096), 0);
}

TEST(FakeVerbsRules, ARequestIsOneSignalledSendOfRegisteredMemory) {
  FakeVerbs fake;
  fake.expect_rule_breaks();
  End a(fake, "10.0.0.1");
  End b(fake, "10.0.0.2");
  End::connect(a, b);
  fake.freeze();
  EXPECT_NE(a.send(0, 4096, 0), 0) << "not signalled";
  EXPECT_NE(a.send(0, 4096, verbs::kSendSignaled, 0), 0) << "an RDMA WRITE";
  EXPECT_NE(a.send(60 << 10, 8192), 0) << "beyond the region";
  std::array<verbs::Piece, 2> pieces = {a.piece(0, 10), a.piece(20, 10)};
  verbs::SendRequest request;
  request.pieces = pieces.data();
  request.piece_count = 2;
  request.flags = verbs::kSendSignaled;
  EXPECT_NE(a.post(request), 0) << "two pieces";
  EXPECT_EQ(a.send(0, 4096), 0);
  EXPECT_NE(a.receive(0, 4096), 0) << "that memory is on its way";
  EXPECT_EQ(fake.rule_breaks().size(), 5u);
}

TEST(FakeVerbsRules, AnOverrunIsRefusedAndCorrupts) {
  FakeVerbs fake;
  fake.expect_rule_breaks();
  End a(fake, "10.0.0.1", QueuePairType::uc, 4);  // frames
  End b(fake, "10.0.0.2");
  End::connect(a, b);
  ASSERT_EQ(a.receive(0, 8192), 0);
  ASSERT_EQ(a.receive(8192, 8192), 0);
  EXPECT_EQ(a.memory.data()[0], std::byte{0});
  EXPECT_EQ(a.receive(16384, 4096), ENOMEM);
  EXPECT_NE(a.memory.data()[0], std::byte{0});
}

TEST(FakeVerbsRules, ASendAndItsRecvCoverEquallyManyFrames) {
  FakeVerbs fake;
  fake.expect_rule_breaks();
  End a(fake, "10.0.0.1");
  End b(fake, "10.0.0.2");
  End::connect(a, b);
  ASSERT_EQ(b.receive(0, 8192), 0);
  ASSERT_EQ(a.send(0, 4097), 0);
  EXPECT_EQ(b.poll().status, verbs::CompletionStatus::success);
  EXPECT_TRUE(fake.rule_breaks().empty());
  ASSERT_EQ(b.receive(0, 8192), 0);
  ASSERT_EQ(a.send(0, 4096), 0);
  EXPECT_EQ(b.poll().status, verbs::CompletionStatus::local_length);
  EXPECT_EQ(fake.rule_breaks().size(), 1u);
}

TEST(FakeVerbsRules, AFabricTakesAShorterSend) {
  FakeVerbs fake(kFabric());
  End a(fake, "10.0.0.1");
  End b(fake, "10.0.0.2");
  End::connect(a, b);
  ASSERT_EQ(b.receive(0, 8192), 0);
  a.memory.data()[2] = std::byte{77};
  ASSERT_EQ(a.send(0, 10), 0);
  verbs::Completion done = b.poll();
  EXPECT_EQ(done.status, verbs::CompletionStatus::success);
  EXPECT_EQ(done.byte_count, 10u);
  EXPECT_EQ(b.memory.data()[2], std::byte{77});
}

TEST(FakeVerbsRules, UcDropsASendThatMeetsNoRecvAndSaysNothing) {
  FakeVerbs fake;
  fake.expect_rule_breaks();
  End a(fake, "10.0.0.1");
  End b(fake, "10.0.0.2");
  End::connect(a, b);
  ASSERT_EQ(a.send(0, 4096), 0);
  EXPECT_EQ(a.poll().status, verbs::CompletionStatus::success);
  ASSERT_EQ(b.receive(0, 4096), 0);
  EXPECT_EQ(b.poll().opcode, UINT32_MAX);
  EXPECT_EQ(fake.unmatched_sends(), 1u);
}

TEST(FakeVerbsRules, RcSendsAgainUntilThereIsARecv) {
  FakeVerbs fake(kFabric());
  End a(fake, "10.0.0.1", QueuePairType::rc);
  End b(fake, "10.0.0.2", QueuePairType::rc);
  End::connect(a, b);
  ASSERT_EQ(a.send(0, 4096), 0);
  EXPECT_EQ(a.poll().opcode, UINT32_MAX);
  ASSERT_EQ(b.receive(0, 4096), 0);
  EXPECT_EQ(b.poll().opcode, verbs::kCompletedReceive);
  EXPECT_EQ(a.poll().opcode, verbs::kCompletedSend);
}

TEST(FakeVerbsRules, WhatIsLeftOpenIsTold) {
  FakeVerbs fake;
  fake.expect_rule_breaks();
  auto library = fake.library();
  End end(fake, "10.0.0.1");
  EXPECT_EQ(library->dealloc_pd(end.domain), EBUSY);
  EXPECT_EQ(library->destroy_cq(end.completions), EBUSY);
  EXPECT_EQ(fake.rule_breaks().size(), 2u);
}

}  // namespace
}  // namespace shoal::link
