#include "link/buffer_pool.h"

#include <bit>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"

namespace shoal::link {
namespace {

size_t class_of(size_t block_bytes) {
  return static_cast<size_t>(std::countr_zero(block_bytes / BufferPool::kUnitBytes));
}

}  // namespace

Buffer::Buffer(std::shared_ptr<BufferPool> pool, HugeBuffer block, size_t size)
    : pool_(std::move(pool)), block_(std::move(block)), size_(size) {}

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::move(other.pool_)), block_(std::move(other.block_)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(block_, other.block_);
  std::swap(size_, other.size_);
  return *this;
}

Buffer::~Buffer() {
  if (pool_) pool_->give_back(std::move(block_));
}

void Buffer::shrink(size_t n) {
  SHOAL_ASSERT(n <= size_);
  size_ = n;
}

std::shared_ptr<BufferPool> BufferPool::create(uint64_t limit_bytes) {
  return std::shared_ptr<BufferPool>(new BufferPool(limit_bytes));
}

Result<Buffer> BufferPool::allocate(size_t bytes) {
  if (bytes == 0) return Buffer();
  if (bytes > limits::kMaxFrameBytes) {
    return fail(ErrorCode::limit_exceeded,
                fmt::format("a frame of {} bytes is over the limit of {}", bytes, limits::kMaxFrameBytes));
  }
  size_t block_bytes = std::bit_ceil((bytes + kUnitBytes - 1) / kUnitBytes) * kUnitBytes;
  {
    std::lock_guard lock(mutex_);
    if (used_bytes_ + block_bytes > limit_bytes_) {
      return fail(ErrorCode::limit_exceeded,
                  fmt::format("link buffers: {} in use, {} more would exceed {}", format_bytes(used_bytes_),
                              format_bytes(block_bytes), format_bytes(limit_bytes_)));
    }
    used_bytes_ += block_bytes;
    auto& idle = idle_[class_of(block_bytes)];
    if (!idle.empty()) {
      HugeBuffer block = std::move(idle.back());
      idle.pop_back();
      idle_bytes_ -= block_bytes;
      return Buffer(shared_from_this(), std::move(block), bytes);
    }
  }
  auto block = HugeBuffer::allocate(block_bytes, "link buffers");
  if (!block) {
    std::lock_guard lock(mutex_);
    used_bytes_ -= block_bytes;
    return std::unexpected(std::move(block).error());
  }
  return Buffer(shared_from_this(), *std::move(block), bytes);
}

void BufferPool::give_back(HugeBuffer block) {
  std::lock_guard lock(mutex_);
  used_bytes_ -= block.size();
  if (idle_bytes_ + block.size() > kMaxIdleBytes) return;  // unmapped after the lock
  idle_bytes_ += block.size();
  idle_[class_of(block.size())].push_back(std::move(block));
}

uint64_t BufferPool::used_bytes() const {
  std::lock_guard lock(mutex_);
  return used_bytes_;
}

}  // namespace shoal::link
