// Where a step's tensors live: blocks in huge pages, handed out and taken back as tensors come and go, so
// that a step needs what is alive at once and layer after layer runs in the same warm memory. When the arena
// is too small it gets a further chunk (earlier pointers stay valid); tidy() joins the chunks once everything
// has been given back. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace shoal::engine::cpu {

class Arena;

// A counted reference to a block of an Arena; the last one gives it back. Must not outlive the arena.
class ArenaBlock {
 public:
  ArenaBlock() = default;
  ArenaBlock(const ArenaBlock& other);
  ArenaBlock(ArenaBlock&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
  ArenaBlock& operator=(ArenaBlock other) noexcept {
    std::swap(owner_, other.owner_);
    return *this;
  }
  ~ArenaBlock();

  std::byte* data() const;
  float* floats() const { return reinterpret_cast<float*>(data()); }

 private:
  friend class Arena;
  struct Owner {
    Arena* arena;
    std::byte* data;
    uint32_t references;
  };
  explicit ArenaBlock(Owner* owner) : owner_(owner) {}
  Owner* owner_ = nullptr;
};

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // 64-byte aligned, not zeroed. Scratch that the system refuses ends the process: a step cannot be half
  // done, and the worker's death is noticed and mended elsewhere.
  ArenaBlock allocate(size_t bytes);
  ArenaBlock allocate_floats(size_t count) { return allocate(count * sizeof(float)); }

  void tidy();
  size_t capacity_bytes() const;
  size_t live_blocks() const { return live_blocks_; }

 private:
  friend class ArenaBlock;
  struct Span {  // neighbours in address; free spans never touch
    size_t offset;
    size_t size;
    bool used;
  };
  struct Chunk {
    HugeBuffer memory;
    std::vector<Span> spans;
  };

  std::byte* take(Chunk& chunk, size_t index, size_t size);
  void release(ArenaBlock::Owner* owner);
  Chunk& add_chunk(size_t bytes);

  std::vector<Chunk> chunks_;
  std::vector<ArenaBlock::Owner*> idle_owners_;
  size_t live_blocks_ = 0;
};

}  // namespace shoal::engine::cpu
