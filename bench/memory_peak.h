// The rate at which cores read memory that no cache holds: the limit of decoding. Several ways of reading are
// tried once and the best is kept, since it is to be a limit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/memory.h"
#include "engine/cpu/thread_pool.h"

namespace shoal::bench {

class MemoryPeak {
 public:
  // Takes 1 GiB in huge pages where the system gives them.
  explicit MemoryPeak(unsigned threads);

  // One pass over the buffer with all threads, about 25 ms: GB/s.
  double measure();
  const char* way() const;  // "2 streams, prefetched 1024 bytes ahead"

 private:
  double pass(size_t way);

  HugeBuffer buffer_;
  engine::cpu::ThreadPool pool_;
  size_t way_ = 0;
};

}  // namespace shoal::bench
