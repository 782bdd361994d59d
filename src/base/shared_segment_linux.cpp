#ifdef __linux__
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <functional>
#include <optional>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/shared_segment.h"

namespace shoal {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::unexpected<Error> refused(std::string_view why) {
  return fail(ErrorCode::unavailable, fmt::format("memory between processes: {}", why));
}

Result<std::span<std::byte>> map(const FileDescriptor& file, size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return refused(std::strerror(errno));
  return std::span(static_cast<std::byte*>(memory), bytes);
}

// "4242/17": descriptor 17 of process 4242.
std::optional<std::string> path_of(std::string_view name) {
  unsigned process = 0, descriptor = 0;
  const char* end = name.data() + name.size();
  auto first = std::from_chars(name.data(), end, process);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '/') return std::nullopt;
  auto second = std::from_chars(first.ptr + 1, end, descriptor);
  if (second.ec != std::errc() || second.ptr != end) return std::nullopt;
  return fmt::format("/proc/{}/fd/{}", process, descriptor);
}

}  // namespace

Result<SharedSegment> SharedSegment::create(size_t bytes) {
  SharedSegment segment;
  segment.file_ = FileDescriptor(::memfd_create("shoal-link", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!segment.file_.valid() || ::ftruncate(segment.file_.get(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(segment.file_.get(), F_ADD_SEALS, kSeals) != 0)
    return refused(std::strerror(errno));
  SHOAL_TRY(segment.bytes_, map(segment.file_, bytes));
  segment.name_ = fmt::format("{}/{}", ::getpid(), segment.file_.get());
  return segment;
}

Result<SharedSegment> SharedSegment::open(const std::string& name, size_t bytes) {
  auto path = path_of(name);
  if (!path) return refused("its name is none");
  // The name may lead to anything that the other process has open, a device or a pipe among them: looked at
  // without opening it first.
  struct stat found{};
  if (::stat(path->c_str(), &found) != 0) return refused(std::strerror(errno));
  if (!S_ISREG(found.st_mode)) return refused("it is no memory");
  FileDescriptor file(::open(path->c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.valid() || ::fstat(file.get(), &found) != 0) return refused(std::strerror(errno));
  if (found.st_uid != ::geteuid()) return refused("it is not ours");
  if (static_cast<uint64_t>(found.st_size) != bytes || (::fcntl(file.get(), F_GET_SEALS) & kSeals) != kSeals)
    return refused("it is not what was announced");
  SharedSegment segment;
  SHOAL_TRY(segment.bytes_, map(file, bytes));
  return segment;
}

void SharedSegment::hide() {
  file_.reset();
  name_.clear();
}

SharedSegment::~SharedSegment() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

uint64_t sharing_domain() {
  auto boot = read_text_file("/proc/sys/kernel/random/boot_id", 64);
  if (!boot) return 0;
  std::string domain = fmt::format("{} {}", *boot, ::geteuid());
  for (const char* name : {"/proc/self/ns/net", "/proc/self/ns/pid"}) {
    std::error_code error;
    domain += std::filesystem::read_symlink(name, error).string();
    if (error) return 0;
  }
  return std::hash<std::string>()(domain);
}

}  // namespace shoal
#endif
