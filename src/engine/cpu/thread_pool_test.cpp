#include "engine/cpu/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <gtest/gtest.h>
#include <random>

#include "base/cores.h"
#include "engine/cpu/arena.h"

namespace shoal::engine::cpu {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceInManyLoops) {
  for (unsigned threads : {1u, 2u, 4u}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.thread_count(), threads);
    for (uint32_t loop = 0; loop < 2000; ++loop) {
      uint32_t count = loop % 17;
      std::vector<uint32_t> calls(count);
      pool.run(count, [&](uint32_t task, unsigned thread) {
        ASSERT_LT(thread, threads);
        calls[task] += task + 1;
      });
      for (uint32_t task = 0; task < count; ++task) ASSERT_EQ(calls[task], task + 1);
    }
  }
}

TEST(ThreadPool, RunsMoreTasksThanOneLoopHolds) {
  ThreadPool pool(3);
  std::vector<uint8_t> calls(200'000);
  pool.run(static_cast<uint32_t>(calls.size()), [&](uint32_t task, unsigned) { ++calls[task]; });
  EXPECT_EQ(std::ranges::count(calls, 1), 200'000);
}

TEST(ThreadPool, OnlyTheThreadsItIsLimitedToTakePart) {
  ThreadPool pool(4);
  for (auto [first, count] : {std::pair{0u, 4u}, {2u, 2u}, {0u, 1u}, {1u, 3u}, {3u, 1u}, {0u, 4u}}) {
    pool.limit(first, count);
    for (int loop = 0; loop < 300; ++loop) {
      std::vector<uint32_t> calls(50);
      pool.run(50, [&, first, count](uint32_t task, unsigned thread) {
        ASSERT_TRUE(thread == 0 || (thread > first && thread < first + count)) << thread;
        calls[task] += task + 1;
      });
      for (uint32_t task = 0; task < 50; ++task) ASSERT_EQ(calls[task], task + 1);
    }
  }
}

TEST(ThreadPool, PinnedThreadsDoTheSame) {
  const std::vector<unsigned> cores = usable_cores();
  ThreadPool pool(static_cast<unsigned>(cores.size()) + 1, cores);
  std::atomic<uint32_t> sum = 0;
  pool.run(100, [&](uint32_t task, unsigned) { sum += task; });
  EXPECT_EQ(sum, 4950u);
}

TEST(ThreadPool, WorkersThatSleptTakePartAgain) {
  ThreadPool pool(3);
  for (int loop = 0; loop < 5; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<uint32_t> sum = 0;
    pool.run(100, [&](uint32_t task, unsigned) { sum += task; });
    EXPECT_EQ(sum, 4950u);
  }
}

TEST(Arena, KeepsPointersWhenItGrowsAndJoinsChunksWhenAllIsBack) {
  Arena arena;
  {
    ArenaBlock first = arena.allocate_floats(1000);
    first.floats()[999] = 5;
    ArenaBlock second = arena.allocate_floats(4 << 20);
    second.floats()[0] = 1;
    EXPECT_EQ(first.floats()[999], 5);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(second.data()) % 64, 0u);
    arena.tidy();  // must not pull live blocks away
    EXPECT_EQ(first.floats()[999], 5);
  }
  EXPECT_EQ(arena.live_blocks(), 0u);
  size_t capacity = arena.capacity_bytes();
  arena.tidy();
  ArenaBlock again = arena.allocate_floats(4 << 20), more = arena.allocate_floats(1000);
  EXPECT_EQ(arena.capacity_bytes(), capacity);
}

TEST(Arena, GivesMemoryBackWithTheLastReference) {
  Arena arena;
  ArenaBlock first = arena.allocate(100), copy = first;
  std::byte* data = first.data();
  first = {};
  EXPECT_NE(arena.allocate(100).data(), data);
  copy = {};
  EXPECT_EQ(arena.allocate(100).data(), data);
}

TEST(Arena, LiveBlocksNeverOverlapAndHolesAreJoined) {
  Arena arena;
  std::mt19937_64 random(3);
  std::vector<std::pair<ArenaBlock, size_t>> live;
  for (int i = 0; i < 5000; ++i) {
    if (live.size() > 20 || (!live.empty() && random() % 2 == 0)) {
      size_t chosen = random() % live.size();
      auto [block, size] = live[chosen];
      for (size_t j = 1; j < size; ++j) ASSERT_EQ(block.data()[j], block.data()[0]);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(chosen));
    } else {
      size_t size = 1 + random() % 30'000;
      live.emplace_back(arena.allocate(size), size);
      std::memset(live.back().first.data(), i & 255, size);
    }
  }
  live.clear();
  size_t capacity = arena.capacity_bytes();
  arena.tidy();
  ArenaBlock all = arena.allocate(capacity);
  EXPECT_EQ(arena.capacity_bytes(), capacity);
}

}  // namespace
}  // namespace shoal::engine::cpu
