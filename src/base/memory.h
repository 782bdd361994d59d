// Large allocations: page-aligned, zeroed, in huge pages when the system gives them. Never throws.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "base/result.h"

namespace shoal {

class HugeBuffer {
 public:
  // `bytes` may be 0. The Error names `what` and the size ("KV cache: cannot allocate 1.5 GiB").
  static Result<HugeBuffer> allocate(size_t bytes, std::string_view what);
  HugeBuffer() = default;
  HugeBuffer(HugeBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), mapped_(std::exchange(other.mapped_, 0)) {}
  HugeBuffer& operator=(HugeBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }
  ~HugeBuffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

// "1.5 GiB", "312 MiB", "7 B": for messages and tables.
std::string format_bytes(uint64_t bytes);
// "512MiB", "8G", "1.5 GB", "123456" -> bytes; suffixes are binary (G = GiB).
Result<uint64_t> parse_bytes(std::string_view text);

}  // namespace shoal
