// Page-aligned memory for frames: what a network device could register once and reuse for ever. Blocks are
// powers of two of 4 KiB; freed blocks are kept for the next frame of their size up to a bound. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/result.h"

namespace shoal::link {

class BufferPool;

// A block of a pool, filled in place and given to a Link with the frame. Returns to its pool when it is
// destroyed.
class Buffer {
 public:
  Buffer() = default;  // no bytes
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() const { return block_.data(); }
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {block_.data(), size_}; }
  ByteView view() const { return bytes(); }
  // The first n bytes are the frame. n must not exceed what was allocated.
  void shrink(size_t n);

 private:
  friend class BufferPool;
  Buffer(std::shared_ptr<BufferPool> pool, HugeBuffer block, size_t size);

  std::shared_ptr<BufferPool> pool_;
  HugeBuffer block_;
  size_t size_ = 0;
};

class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  static constexpr size_t kUnitBytes = 4096;

  // At most `limit_bytes` in blocks that are in use.
  static std::shared_ptr<BufferPool> create(uint64_t limit_bytes);

  // The content is undefined. Over limits::kMaxFrameBytes or the pool's limit: limit_exceeded.
  Result<Buffer> allocate(size_t bytes);
  uint64_t used_bytes() const;

 private:
  friend class Buffer;
  static constexpr size_t kClasses = 17;  // 4 KiB << 16 = 256 MiB
  static constexpr uint64_t kMaxIdleBytes = 64 << 20;

  explicit BufferPool(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  void give_back(HugeBuffer block);

  mutable std::mutex mutex_;  // guards what follows
  std::array<std::vector<HugeBuffer>, kClasses> idle_;
  uint64_t idle_bytes_ = 0;
  uint64_t used_bytes_ = 0;
  const uint64_t limit_bytes_;
};

}  // namespace shoal::link
