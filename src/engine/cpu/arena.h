// Where a step's tensors live: a bump allocator in huge pages that is emptied between steps. A step that
// needs more than ever before gets a further chunk (earlier pointers stay valid); the next reset() joins the
// chunks into one.
#pragma once

#include <cstddef>
#include <vector>

#include "base/memory.h"

namespace shoal::engine::cpu {

class Arena {
 public:
  // 64-byte aligned, not zeroed. Scratch that the system refuses ends the process: a step cannot be half
  // done, and the worker's death is noticed and mended elsewhere.
  std::byte* allocate(size_t bytes);
  float* allocate_floats(size_t count) { return reinterpret_cast<float*>(allocate(count * sizeof(float))); }

  // Invalidates all pointers.
  void reset();
  size_t capacity_bytes() const;

 private:
  std::vector<HugeBuffer> chunks_;
  size_t used_ = 0;  // of the last chunk
};

}  // namespace shoal::engine::cpu
