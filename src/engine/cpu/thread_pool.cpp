#include "engine/cpu/thread_pool.h"

#include "base/assert.h"

namespace shoal::engine::cpu {
namespace {

constexpr int kSpinsBeforeSleep = 2000;   // about 40 us
constexpr int kSpinsBeforeYield = 20000;  // the caller's, when a worker that holds a task was descheduled

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(unsigned thread_count) {
  SHOAL_ASSERT(thread_count >= 1);
  workers_.reserve(thread_count - 1);
  for (unsigned thread = 1; thread < thread_count; ++thread)
    workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  signal_.fetch_add(1);
  signal_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_on_all(uint32_t task_count, Call call, void* context) {
  task_count_ = task_count;
  call_ = call;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  uint64_t loop = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(loop << 32 | task_count, std::memory_order_release);
  signal_.fetch_add(1);
  signal_.notify_all();
  while (claim_and_run(0)) {
  }
  for (int spins = 0; done_.load(std::memory_order_acquire) != task_count; ++spins) {
    if (spins < kSpinsBeforeYield) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

bool ThreadPool::claim_and_run(unsigned thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  do {
    if (static_cast<uint32_t>(ticket) == 0) return false;
  } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire));
  // The claim keeps the caller waiting, so the loop's fields are stable until done_ is raised.
  call_(context_, task_count_ - static_cast<uint32_t>(ticket), thread);
  done_.fetch_add(1, std::memory_order_release);
  return true;
}

void ThreadPool::work(unsigned thread) {
  while (!stopping_.load(std::memory_order_relaxed)) {
    uint32_t seen = signal_.load();
    bool worked = false;
    while (claim_and_run(thread)) worked = true;
    for (int spins = 0; !worked && spins < kSpinsBeforeSleep; ++spins) {
      relax();
      worked = signal_.load(std::memory_order_relaxed) != seen;
    }
    if (!worked && !stopping_.load()) signal_.wait(seen);
  }
}

}  // namespace shoal::engine::cpu
