// How the workers of one machine, of whatever node, keep out of each other's way: a page of shared memory
// with a slot for each, in which it says whether it is in a step and how many threads it would like. A worker
// looks at the others when it begins a step: if they all fit on the cores, it uses all its threads, else a
// share of the cores, and then no core belongs to two workers. So a worker that is alone, or whose turn it is
// in a pipeline on one machine, has the whole machine. Results do not depend on it.
//
// Nothing here waits for anybody, and nothing is believed for longer than a lease: the worst that a dead or
// hostile neighbour of the same user does is to cost speed. Without shared memory every worker counts as
// alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "base/shared_memory.h"
#include "engine/thread_share.h"

namespace shoal::worker {

class CoreLedger {
 public:
  // `threads`: of this worker; `cores`: that it may run on. Only workers with equal cores share them.
  CoreLedger(const std::string& name, unsigned threads, std::span<const unsigned> cores);
  ~CoreLedger();
  CoreLedger(const CoreLedger&) = delete;
  CoreLedger& operator=(const CoreLedger&) = delete;

  engine::ThreadShare begin_step();
  void end_step();

 private:
  struct Slot {                               // in shared memory, zeros at first
    alignas(64) std::atomic<uint64_t> owner;  // process id << 32 | what its cores are; 0: nobody
    std::atomic<uint64_t> busy_until_ns;      // of the steady clock
    std::atomic<uint32_t> threads;
  };
  static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(Slot) == 64);

  std::span<Slot> slots() const;
  void take_slot();

  SharedMemory memory_;
  Slot* mine_ = nullptr;
  unsigned threads_;
  unsigned core_count_;
  uint32_t core_key_;
};

}  // namespace shoal::worker
