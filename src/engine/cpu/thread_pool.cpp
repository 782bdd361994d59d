#include "engine/cpu/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "base/assert.h"
#include "base/cores.h"
#include "base/system.h"

namespace shoal::engine::cpu {
namespace {

// How long a worker waits awake for the next loop. Between the loops of a step lie some microseconds.
constexpr auto kSpinTime = std::chrono::microseconds(50);
constexpr int kPausesPerLook = 32;  // at the clock
// Before a thread looks for tasks that others have not begun: if they have, looking only disturbs them.
constexpr int kPausesBeforeStealing = 16;
// The caller's, before it lets others run, when a worker that holds a task was descheduled.
constexpr int kPausesBeforeYield = 4000;
constexpr uint32_t kMaxTasks = 0xffff;     // of a Loop
constexpr unsigned kMaxThreads = 0x3ff;    // likewise
constexpr uint64_t kNumbers = 1ull << 38;  // of loops, before they begin anew
// So often all shares are brought up to date, lest an old one look new when the numbers begin anew.
constexpr uint64_t kLoopsPerTidying = 1 << 20;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

bool is_newer(uint64_t number, uint64_t than) {
  return number != than && (number - than) % kNumbers < kNumbers / 2;
}

}  // namespace

ThreadPool::ThreadPool(unsigned thread_count, std::span<const unsigned> cores)
    : active_(thread_count),
      // Cores that were chosen for the threads count: the caller may be kept to one of them by now.
      spins_(thread_count <= std::max<size_t>(usable_core_count(), cores.size())) {
  SHOAL_ASSERT(thread_count >= 1 && thread_count <= kMaxThreads);
  shares_ = std::make_unique<Share[]>(thread_count);
  workers_.reserve(thread_count - 1);
  for (unsigned thread = 1; thread < thread_count; ++thread) {
    workers_.emplace_back([this, thread, core = thread < cores.size() ? int(cores[thread]) : -1] {
      if (core >= 0) stay_on_core(static_cast<unsigned>(core));
      work(thread);
    });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  loop_.store(Loop{(last_number_ + 1) % kNumbers, 0, 0}.word());
  for (unsigned thread = 1; thread < thread_count(); ++thread) wake(thread);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::limit(unsigned first, unsigned count) {
  SHOAL_ASSERT(count >= 1 && first + count <= thread_count());
  first_.store(first, std::memory_order_relaxed);
  active_ = count;
}

void ThreadPool::run_on_all(uint32_t task_count, Call call, void* context) {
  call_ = call;
  context_ = context;
  for (uint32_t first = 0; first < task_count; first += std::min(kMaxTasks, task_count - first)) {
    const uint32_t count = std::min(kMaxTasks, task_count - first);
    last_number_ = (last_number_ + 1) % kNumbers;
    run_loop(first, {last_number_, std::min(active_, count), count});
  }
}

void ThreadPool::run_loop(uint32_t first_task, const Loop& loop) {
  first_task_ = first_task;
  const uint32_t target = target_.load(std::memory_order_relaxed) + loop.tasks;
  target_.store(target, std::memory_order_relaxed);
  loop_.store(loop.word());
  take_part(loop, 0, 0);
  for (int pauses = 0; done_.load(std::memory_order_acquire) != target; ++pauses) {
    if (spins_ && pauses < kPausesBeforeYield) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
  if (loop.number % kLoopsPerTidying != 0) return;
  for (unsigned share = 0; share < thread_count(); ++share) shares_[share].ticket.store(loop.number << 16);
}

bool ThreadPool::claim(const Loop& loop, uint32_t share, uint32_t& task) {
  const uint32_t end = loop.share_begin(share + 1), size = end - loop.share_begin(share);
  std::atomic<uint64_t>& ticket = shares_[share].ticket;
  uint64_t seen = ticket.load(std::memory_order_acquire);
  while (true) {
    const uint64_t number = seen >> 16;
    if (is_newer(number, loop.number)) return false;
    const uint32_t left = number == loop.number ? static_cast<uint32_t>(seen & 0xffff) : size;
    if (left == 0) return false;
    if (ticket.compare_exchange_weak(seen, loop.number << 16 | (left - 1), std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
      task = end - left;
      return true;
    }
  }
}

// How many tasks it ran.
uint32_t ThreadPool::run_share(const Loop& loop, uint32_t share, unsigned thread) {
  uint32_t count = 0;
  // A claim keeps the caller waiting, so the loop's fields are stable until done_ is raised.
  for (uint32_t task = 0; claim(loop, share, task); ++count) call_(context_, first_task_ + task, thread);
  return count;
}

// A hint for those who look for something to do.
bool ThreadPool::is_over(const Loop& loop) const {
  return loop_.load(std::memory_order_relaxed) != loop.word() ||
         done_.load(std::memory_order_relaxed) == target_.load(std::memory_order_relaxed);
}

// First the thread's own share, then what is left of the others'.
void ThreadPool::take_part(const Loop& loop, uint32_t share, unsigned thread) {
  wake_two(loop, share);
  for (uint32_t i = 0; i < loop.shares; ++i) {
    const uint32_t count = run_share(loop, (share + i) % loop.shares, thread);
    if (count != 0) done_.fetch_add(count, std::memory_order_release);
    if (is_over(loop)) return;
    for (int pauses = 0; i == 0 && pauses < kPausesBeforeStealing; ++pauses) {
      relax();
      if (is_over(loop)) return;
    }
  }
}

// The sleepers among the shares are woken as a tree, so that nobody wakes many.
void ThreadPool::wake_two(const Loop& loop, uint32_t share) {
  for (uint32_t child = 2 * share + 1; child <= 2 * share + 2 && child < loop.shares; ++child)
    wake(first_.load(std::memory_order_relaxed) + child);
}

// All accesses of `loop_` and `asleep` that decide about sleep are in one order (seq_cst): either the worker
// sees the new loop before it sleeps, or whoever saw that loop sees it asleep.
void ThreadPool::wake(unsigned thread) {
  std::atomic<uint32_t>& asleep = shares_[thread].asleep;
  if (asleep.load() == 0) return;
  asleep.store(0);
  asleep.notify_one();
}

uint64_t ThreadPool::await_loop(unsigned thread, uint64_t seen) {
  const auto begin = std::chrono::steady_clock::now();
  while (spins_ && std::chrono::steady_clock::now() - begin < kSpinTime) {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (const uint64_t word = loop_.load(); word != seen) return word;
      relax();
    }
  }
  std::atomic<uint32_t>& asleep = shares_[thread].asleep;
  while (true) {
    asleep.store(1);
    if (const uint64_t word = loop_.load(); word != seen) {
      asleep.store(0);
      return word;
    }
    asleep.wait(1);
  }
}

void ThreadPool::work(unsigned thread) {
  uint64_t seen = 0;
  while (true) {
    seen = await_loop(thread, seen);
    if (stopping_.load()) return;
    const Loop loop = Loop::of(seen);
    const unsigned first = first_.load(std::memory_order_relaxed);
    if (thread > first && thread - first < loop.shares) take_part(loop, thread - first, thread);
  }
}

}  // namespace shoal::engine::cpu
