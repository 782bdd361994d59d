// A fixed team of threads for the loops of one step. The caller is thread 0 and works too. Each thread begins
// with its own share of a loop's tasks, neighbours and the same ones in every loop of that length, then takes
// over what others have not begun: which thread runs a task is chance, so tasks must write disjoint outputs
// and never share a sum. Workers spin for some tens of microseconds after a loop, since the next one usually
// follows at once, then sleep; with more threads than cores they sleep at once. One caller at a time; tasks
// must not call run().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <type_traits>
#include <vector>

namespace shoal::engine::cpu {

class ThreadPool {
 public:
  // At least 1 thread; 1 starts none. Worker t stays on cores[t], if there is one; the caller goes where the
  // system sends it.
  explicit ThreadPool(unsigned thread_count, std::span<const unsigned> cores = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned thread_count() const { return static_cast<unsigned>(workers_.size()) + 1; }

  // From the next loop on only threads (first, first + count) and the caller, in place of thread `first`,
  // take part. For when others need the rest of the machine. `count` >= 1, first + count <= thread_count().
  void limit(unsigned first, unsigned count);

  // Calls function(task, thread) once for each task of [0, task_count) and returns when all are done.
  // A single task, or a pool of one, runs on the caller without waking anybody.
  template <class Function>
  void run(uint32_t task_count, Function&& function) {
    if (task_count <= 1 || active_ == 1) {
      for (uint32_t task = 0; task < task_count; ++task) function(task, 0u);
      return;
    }
    using Plain = std::remove_reference_t<Function>;
    run_on_all(
        task_count,
        [](void* context, uint32_t task, unsigned thread) { (*static_cast<Plain*>(context))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&function)));
  }

 private:
  using Call = void (*)(void* context, uint32_t task, unsigned thread);

  // A loop as one word: its number, how many threads take part, how many tasks it has.
  struct Loop {
    uint64_t number;
    uint32_t shares;
    uint32_t tasks;

    uint64_t word() const { return number << 26 | uint64_t{shares} << 16 | tasks; }
    static Loop of(uint64_t word) {
      return {word >> 26, static_cast<uint32_t>(word >> 16 & 0x3ff), static_cast<uint32_t>(word & 0xffff)};
    }
    uint32_t share_begin(uint32_t share) const {
      return static_cast<uint32_t>(uint64_t{tasks} * share / shares);
    }
  };
  // Share s of the loop `number`: how many of its tasks nobody has begun. With an older number it was not
  // touched yet: whoever comes first brings it up to date.
  struct alignas(64) Share {
    std::atomic<uint64_t> ticket = 0;              // number << 16 | tasks left
    alignas(64) std::atomic<uint32_t> asleep = 0;  // of the worker with this index; what it waits on
  };

  void run_on_all(uint32_t task_count, Call call, void* context);
  void run_loop(uint32_t first_task, const Loop& loop);
  bool claim(const Loop& loop, uint32_t share, uint32_t& task);
  uint32_t run_share(const Loop& loop, uint32_t share, unsigned thread);
  void take_part(const Loop& loop, uint32_t share, unsigned thread);
  bool is_over(const Loop& loop) const;
  void wake_two(const Loop& loop, uint32_t share);
  void wake(unsigned thread);
  void work(unsigned thread);
  uint64_t await_loop(unsigned thread, uint64_t seen);

  // The loop under way: written by the caller before `loop_` publishes it, read only by holders of a claimed
  // task.
  uint32_t first_task_ = 0;
  Call call_ = nullptr;
  void* context_ = nullptr;
  uint64_t last_number_ = 0;
  unsigned active_;
  bool spins_;

  alignas(64) std::atomic<uint64_t> loop_ = 0;  // Loop::word()
  std::atomic<uint32_t> target_ = 0;            // what done_ is when the loop is over
  std::atomic<unsigned> first_ = 0;             // see limit(); may be out of date, which costs only time
  std::atomic<bool> stopping_ = false;
  alignas(64) std::atomic<uint32_t> done_ = 0;  // tasks finished since the beginning, modulo 2^32
  std::unique_ptr<Share[]> shares_;             // one per thread
  std::vector<std::thread> workers_;
};

}  // namespace shoal::engine::cpu
