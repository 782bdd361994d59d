// A few pages that all processes of this user on this machine share, by name. They begin as zeros and stay
// until the machine restarts. What is in them is written by others: to be judged, not believed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "base/result.h"

namespace shoal {

class SharedMemory {
 public:
  // `name` is letters and dashes, at most 20. unavailable: the system has none for us, or somebody else's
  // lies in that place.
  static Result<SharedMemory> open(const std::string& name, size_t bytes);
  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~SharedMemory();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace shoal
