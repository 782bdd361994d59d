// Memory that two processes of one user on one machine share: one creates it and tells the other its name.
// What is in it is written by both: to be copied first and judged then. On Linux it is a sealed memfd, which
// the other process cannot shrink under us and which leaves nothing behind; on macOS a shm object whose name
// is taken away once both have it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/result.h"

namespace shoal {

class SharedSegment {
 public:
  // New, zeros. unavailable: the system has none for us.
  static Result<SharedSegment> create(size_t bytes);
  // The one of that name, if it is of our user and has exactly `bytes`; else unavailable. Any text is safe.
  static Result<SharedSegment> open(const std::string& name, size_t bytes);
  SharedSegment() = default;
  SharedSegment(SharedSegment&& other) noexcept { swap(other); }
  SharedSegment& operator=(SharedSegment&& other) noexcept {
    swap(other);
    return *this;
  }
  ~SharedSegment();

  // What open() takes, while the creator lives and has not called hide(); "" where it was opened.
  const std::string& name() const { return name_; }
  void hide();  // nobody else opens it from now on
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  void swap(SharedSegment& other) noexcept {
    std::swap(file_, other.file_);
    std::swap(name_, other.name_);
    std::swap(bytes_, other.bytes_);
  }

  FileDescriptor file_;
  std::string name_;
  std::span<std::byte> bytes_;
};

// Equal for processes that may share memory: of one user, on one machine since its start and, on Linux, in
// the same process and network namespaces (a container counts as a machine of its own). 0: there is no
// telling.
uint64_t sharing_domain();

}  // namespace shoal
