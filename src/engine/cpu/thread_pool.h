// A fixed team of threads for the loops of one step. The caller is thread 0 and works too. Workers spin for
// some tens of microseconds after a loop, since the next one usually follows at once, then sleep. Tasks are
// claimed one at a time, so which thread runs a task is chance: tasks must write disjoint outputs and never
// share a sum. One caller at a time; tasks must not call run().
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace shoal::engine::cpu {

class ThreadPool {
 public:
  explicit ThreadPool(unsigned thread_count);  // at least 1; 1 starts no thread
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned thread_count() const { return static_cast<unsigned>(workers_.size()) + 1; }

  // Calls function(task, thread) once for each task of [0, task_count) and returns when all are done.
  // A single task, or a pool of one, runs on the caller without waking anybody.
  template <class Function>
  void run(uint32_t task_count, Function&& function) {
    if (task_count <= 1 || workers_.empty()) {
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

  void run_on_all(uint32_t task_count, Call call, void* context);
  bool claim_and_run(unsigned thread);
  void work(unsigned thread);

  // The loop under way: written by the caller before `ticket_` publishes it, read only by holders of a
  // claimed task.
  uint32_t task_count_ = 0;
  Call call_ = nullptr;
  void* context_ = nullptr;

  alignas(64) std::atomic<uint64_t> ticket_ =
      0;  // high half: number of the loop; low half: tasks not yet claimed
  alignas(64) std::atomic<uint32_t> done_ = 0;    // tasks finished
  alignas(64) std::atomic<uint32_t> signal_ = 0;  // changes with every loop; what sleeping workers wait on
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace shoal::engine::cpu
