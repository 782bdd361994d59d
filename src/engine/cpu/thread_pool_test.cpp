#include "engine/cpu/thread_pool.h"

#include <chrono>
#include <gtest/gtest.h>
#include <numeric>

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

TEST(ThreadPool, WorkersThatSleptTakePartAgain) {
  ThreadPool pool(3);
  for (int loop = 0; loop < 5; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<uint32_t> sum = 0;
    pool.run(100, [&](uint32_t task, unsigned) { sum += task; });
    EXPECT_EQ(sum, 4950u);
  }
}

TEST(Arena, KeepsPointersWhenItGrowsAndJoinsChunksOnReset) {
  Arena arena;
  float* first = arena.allocate_floats(1000);
  first[999] = 5;
  float* second = arena.allocate_floats(4 << 20);
  second[0] = 1;
  EXPECT_EQ(first[999], 5);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second) % 64, 0u);
  size_t capacity = arena.capacity_bytes();
  arena.reset();
  EXPECT_EQ(arena.capacity_bytes(), capacity);
  float* again = arena.allocate_floats(4 << 20);
  EXPECT_EQ(arena.allocate_floats(16), again + (4 << 20));
  EXPECT_EQ(arena.capacity_bytes(), capacity);
}

}  // namespace
}  // namespace shoal::engine::cpu
