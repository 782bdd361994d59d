// The rate at which cores read memory that no cache holds: the limit of decoding. Several ways of reading are
// tried once and the best is kept, since it is to be a limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/memory.h"
#include "engine/cpu/thread_pool.h"
#include "figures.h"

namespace shoal::bench {

class MemoryPeak {
 public:
  static constexpr size_t kUsualBytes = size_t{1} << 30;  // more than any cache holds

  // Takes whole MiB of memory, in huge pages where the system gives them.
  MemoryPeak(unsigned threads, std::span<const unsigned> cores, size_t bytes = kUsualBytes);

  // Reads `bytes` that no cache holds with all threads. What it stands beside should read as much at a time,
  // so that both are interrupted alike.
  Times measure(double bytes);
  const char* way() const;  // "2 streams, prefetched 1024 bytes ahead"

 private:
  void pass(size_t way, uint32_t tasks);

  HugeBuffer buffer_;
  engine::cpu::ThreadPool pool_;
  size_t way_ = 0;
  uint32_t next_task_ = 0;  // where the next pass begins
};

}  // namespace shoal::bench
