// Files: read-only memory maps, bounded reads, and writes that are either whole or absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace shoal {

// A file descriptor that closes itself.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

// A whole file mapped read-only. The bytes may change under us if somebody truncates the file; shoal's own store
// never does (it renames), and a user's file is theirs.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  ByteView bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that these bytes were used and need not stay cached in our memory (after repacking weights).
  void drop_pages(ByteView range) const;

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The file's text; larger than `limit` bytes is limit_exceeded, absent is not_found.
Result<std::string> read_text_file(const std::filesystem::path& path, uint64_t limit);

// Writes to a temporary neighbour, fsyncs, renames: a reader sees the old file or the new one, never a part.
Result<> write_file_atomically(const std::filesystem::path& path, ByteView content);

// The Error for the current errno: "<doing> '<path>': No space left on device".
[[nodiscard]] std::unexpected<Error> fail_errno(std::string_view doing, std::string_view subject);

}  // namespace shoal
