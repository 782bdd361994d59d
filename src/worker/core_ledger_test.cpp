#include "worker/core_ledger.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace shoal::worker {
namespace {

const std::vector<unsigned> kEightCores = {0, 1, 2, 3, 4, 5, 6, 7};

// A ledger of its own for each test, gone afterwards.
class CoreLedgerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!SharedMemory::open(name_, 64).has_value()) GTEST_SKIP() << "no shared memory here";
  }
  void TearDown() override { ::shm_unlink(fmt::format("/{}-{}", name_, ::getuid()).c_str()); }

  const std::string name_ = fmt::format("shoal-test-{}", ::getpid());
};

TEST_F(CoreLedgerTest, AWorkerAloneHasAllItsThreads) {
  CoreLedger ledger(name_, 8, kEightCores), idle(name_, 8, kEightCores);
  EXPECT_EQ(ledger.begin_step(), (engine::ThreadShare{0, 8}));
  ledger.end_step();
  EXPECT_EQ(idle.begin_step(), (engine::ThreadShare{0, 8}));
}

TEST_F(CoreLedgerTest, WorkersInAStepAtOnceDivideTheCoresAndTakeThemBack) {
  CoreLedger first(name_, 8, kEightCores), second(name_, 8, kEightCores), third(name_, 8, kEightCores);
  first.begin_step();
  EXPECT_EQ(second.begin_step(), (engine::ThreadShare{4, 4}));
  EXPECT_EQ(first.begin_step(), (engine::ThreadShare{0, 4}));
  std::vector<unsigned> used(8);
  for (const engine::ThreadShare share : {third.begin_step(), second.begin_step(), first.begin_step()}) {
    for (unsigned thread = share.first; thread < share.first + share.count; ++thread) ++used[thread];
  }
  EXPECT_EQ(used, std::vector<unsigned>(8, 1));
  second.end_step();
  third.end_step();
  EXPECT_EQ(first.begin_step(), (engine::ThreadShare{0, 8}));
}

TEST_F(CoreLedgerTest, WorkersThatFitTogetherKeepTheirThreads) {
  CoreLedger first(name_, 3, kEightCores), second(name_, 5, kEightCores);
  first.begin_step();
  EXPECT_EQ(second.begin_step(), (engine::ThreadShare{0, 5}));
}

TEST_F(CoreLedgerTest, OtherCoresDoNotCount) {
  const std::vector<unsigned> others = {8, 9, 10, 11};
  CoreLedger first(name_, 8, kEightCores), second(name_, 4, others);
  first.begin_step();
  EXPECT_EQ(second.begin_step(), (engine::ThreadShare{0, 4}));
}

TEST_F(CoreLedgerTest, EveryWorkerKeepsAThreadHoweverManyThereAre) {
  std::vector<std::unique_ptr<CoreLedger>> ledgers;
  for (int i = 0; i < 70; ++i) ledgers.push_back(std::make_unique<CoreLedger>(name_, 8, kEightCores));
  for (const auto& ledger : ledgers) {
    const engine::ThreadShare share = ledger->begin_step();
    EXPECT_GE(share.count, 1u);
    EXPECT_LE(share.first + share.count, 8u);
  }
}

TEST_F(CoreLedgerTest, WhatOthersWroteCannotHarm) {
  CoreLedger ledger(name_, 8, kEightCores);
  for (const std::byte value : {std::byte{0xff}, std::byte{0x7f}, std::byte{1}}) {
    const SharedMemory memory = *SharedMemory::open(name_, 4096);
    for (std::byte& byte : memory.bytes()) byte = value;
    const engine::ThreadShare share = ledger.begin_step();
    EXPECT_GE(share.count, 1u);
    EXPECT_LE(share.first + share.count, 8u);
  }
}

}  // namespace
}  // namespace shoal::worker
