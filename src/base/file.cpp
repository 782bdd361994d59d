#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace shoal {
namespace {

Result<FileDescriptor> open_for_reading(const std::filesystem::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno("cannot open", path.native());
  return fd;
}

// Size of a regular file; directories and pipes are refused.
Result<uint64_t> regular_size(const FileDescriptor& fd, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno("cannot stat", path.native());
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a regular file", path.native()));
  }
  return static_cast<uint64_t>(info.st_size);
}

Result<> write_all(const FileDescriptor& fd, ByteView content, const std::string& path) {
  while (!content.empty()) {
    ssize_t written = ::write(fd.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno("cannot write", path);
    content = content.subspan(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace

std::unexpected<Error> fail_errno(std::string_view doing, std::string_view subject) {
  int number = errno;
  ErrorCode code = number == ENOENT ? ErrorCode::not_found : number == ENOMEM ? ErrorCode::out_of_memory : ErrorCode::io;
  return fail(code, fmt::format("{} '{}': {}", doing, subject, std::strerror(number)));
}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void FileDescriptor::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  SHOAL_TRY(FileDescriptor fd, open_for_reading(path));
  SHOAL_TRY(uint64_t size, regular_size(fd, path));
  if (size == 0) return MappedFile(path, nullptr, 0);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return fail_errno("cannot map", path.native());
  return MappedFile(path, static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::drop_pages(ByteView range) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  uintptr_t begin = (reinterpret_cast<uintptr_t>(range.data()) + page - 1) / page * page;
  uintptr_t end = (reinterpret_cast<uintptr_t>(range.data()) + range.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Result<std::string> read_text_file(const std::filesystem::path& path, uint64_t limit) {
  SHOAL_TRY(FileDescriptor fd, open_for_reading(path));
  SHOAL_TRY(uint64_t size, regular_size(fd, path));
  if (size > limit) {
    return fail(ErrorCode::limit_exceeded,
                fmt::format("'{}' has {} bytes, more than the {} allowed", path.native(), size, limit));
  }
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    ssize_t got = ::read(fd.get(), text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("cannot read", path.native());
    if (got == 0) break;  // shrank while we read
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

Result<> write_file_atomically(const std::filesystem::path& path, ByteView content) {
  std::string temporary = path.native() + ".partial";
  FileDescriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return fail_errno("cannot create", temporary);
  SHOAL_TRY_VOID(write_all(fd, content, temporary));
  if (::fsync(fd.get()) != 0) return fail_errno("cannot fsync", temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail_errno("cannot rename", temporary);
  return {};
}

}  // namespace shoal
