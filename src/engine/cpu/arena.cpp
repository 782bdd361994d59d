#include "engine/cpu/arena.h"

#include <algorithm>

#include "base/assert.h"

namespace shoal::engine::cpu {
namespace {
constexpr size_t kSmallestChunkBytes = 2 << 20;
}

ArenaBlock::ArenaBlock(const ArenaBlock& other) : owner_(other.owner_) {
  if (owner_) ++owner_->references;
}

ArenaBlock::~ArenaBlock() {
  if (owner_ && --owner_->references == 0) owner_->arena->release(owner_);
}

std::byte* ArenaBlock::data() const {
  return owner_ ? owner_->data : nullptr;
}

Arena::~Arena() {
  SHOAL_ASSERT(live_blocks_ == 0);
  for (ArenaBlock::Owner* owner : idle_owners_) delete owner;
}

ArenaBlock Arena::allocate(size_t bytes) {
  SHOAL_ASSERT(bytes < SIZE_MAX / 4);
  size_t size = std::max<size_t>(64, (bytes + 63) / 64 * 64);
  Chunk* best_chunk = nullptr;
  size_t best = 0;
  for (Chunk& chunk : chunks_) {
    for (size_t i = 0; i < chunk.spans.size(); ++i) {
      const Span& span = chunk.spans[i];
      if (span.used || span.size < size) continue;
      if (!best_chunk || span.size < best_chunk->spans[best].size) {
        best_chunk = &chunk;
        best = i;
      }
    }
  }
  if (!best_chunk) {
    best_chunk = &add_chunk(std::max(size, capacity_bytes()));
    best = 0;
  }
  if (idle_owners_.empty()) idle_owners_.push_back(new ArenaBlock::Owner());
  ArenaBlock::Owner* owner = idle_owners_.back();
  idle_owners_.pop_back();
  *owner = {.arena = this, .data = take(*best_chunk, best, size), .references = 1};
  ++live_blocks_;
  return ArenaBlock(owner);
}

Arena::Chunk& Arena::add_chunk(size_t bytes) {
  size_t size = std::max(kSmallestChunkBytes, (bytes + 63) / 64 * 64);
  auto memory = HugeBuffer::allocate(size, "step scratch");
  SHOAL_ASSERT(memory.has_value());
  chunks_.push_back({.memory = *std::move(memory), .spans = {{.offset = 0, .size = size, .used = false}}});
  return chunks_.back();
}

std::byte* Arena::take(Chunk& chunk, size_t index, size_t size) {
  Span& span = chunk.spans[index];
  std::byte* data = chunk.memory.data() + span.offset;
  Span rest = {.offset = span.offset + size, .size = span.size - size, .used = false};
  span.size = size;
  span.used = true;
  if (rest.size != 0) chunk.spans.insert(chunk.spans.begin() + static_cast<std::ptrdiff_t>(index) + 1, rest);
  return data;
}

void Arena::release(ArenaBlock::Owner* owner) {
  std::byte* data = owner->data;
  idle_owners_.push_back(owner);
  --live_blocks_;
  for (Chunk& chunk : chunks_) {
    if (data < chunk.memory.data() || data >= chunk.memory.data() + chunk.memory.size()) continue;
    auto offset = static_cast<size_t>(data - chunk.memory.data());
    auto span = std::ranges::lower_bound(chunk.spans, offset, {}, &Span::offset);
    SHOAL_ASSERT(span != chunk.spans.end() && span->offset == offset && span->used);
    span->used = false;
    if (auto next = span + 1; next != chunk.spans.end() && !next->used) {
      span->size += next->size;
      chunk.spans.erase(next);
    }
    if (span != chunk.spans.begin() && !(span - 1)->used) {
      (span - 1)->size += span->size;
      chunk.spans.erase(span);
    }
    return;
  }
}

void Arena::tidy() {
  if (live_blocks_ != 0 || chunks_.size() <= 1) return;
  size_t total = capacity_bytes();
  chunks_.clear();
  add_chunk(total);
}

size_t Arena::capacity_bytes() const {
  size_t total = 0;
  for (const Chunk& chunk : chunks_) total += chunk.memory.size();
  return total;
}

}  // namespace shoal::engine::cpu
