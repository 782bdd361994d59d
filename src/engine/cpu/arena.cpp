#include "engine/cpu/arena.h"

#include <algorithm>

#include "base/assert.h"
#include "base/bytes.h"

namespace shoal::engine::cpu {
namespace {
constexpr size_t kSmallestChunkBytes = 2 << 20;
}

std::byte* Arena::allocate(size_t bytes) {
  SHOAL_ASSERT(bytes < SIZE_MAX / 4);
  size_t rounded = (bytes + 63) / 64 * 64;
  if (chunks_.empty() || chunks_.back().size() - used_ < rounded) {
    size_t grown = std::max({kSmallestChunkBytes, rounded, capacity_bytes()});
    auto chunk = HugeBuffer::allocate(grown, "step scratch");
    SHOAL_ASSERT(chunk.has_value());
    chunks_.push_back(*std::move(chunk));
    used_ = 0;
  }
  std::byte* result = chunks_.back().data() + used_;
  used_ += rounded;
  return result;
}

void Arena::reset() {
  used_ = 0;
  if (chunks_.size() <= 1) return;
  size_t total = capacity_bytes();
  chunks_.clear();
  auto joined = HugeBuffer::allocate(total, "step scratch");
  SHOAL_ASSERT(joined.has_value());
  chunks_.push_back(*std::move(joined));
}

size_t Arena::capacity_bytes() const {
  size_t total = 0;
  for (const HugeBuffer& chunk : chunks_) total += chunk.size();
  return total;
}

}  // namespace shoal::engine::cpu
