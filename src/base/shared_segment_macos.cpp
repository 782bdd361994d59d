#ifdef __APPLE__
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <functional>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include "base/shared_segment.h"
#include "base/system.h"

namespace shoal {
namespace {

constexpr std::string_view kPrefix = "/shoal-";
constexpr size_t kLongestName = 30;  // PSHMNAMLEN

std::unexpected<Error> refused(std::string_view why) {
  return fail(ErrorCode::unavailable, fmt::format("memory between processes: {}", why));
}

Result<std::span<std::byte>> map(const FileDescriptor& file, size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return refused(std::strerror(errno));
  return std::span(static_cast<std::byte*>(memory), bytes);
}

}  // namespace

Result<SharedSegment> SharedSegment::create(size_t bytes) {
  SharedSegment segment;
  std::string name = fmt::format("{}{:016x}", kPrefix, random_u64());
  segment.file_ = FileDescriptor(::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
  if (!segment.file_.valid()) return refused(std::strerror(errno));
  segment.name_ = std::move(name);
  if (::ftruncate(segment.file_.get(), static_cast<off_t>(bytes)) != 0) return refused(std::strerror(errno));
  SHOAL_TRY(segment.bytes_, map(segment.file_, bytes));
  return segment;
}

Result<SharedSegment> SharedSegment::open(const std::string& name, size_t bytes) {
  if (!name.starts_with(kPrefix) || name.size() > kLongestName) return refused("its name is none");
  FileDescriptor file(::shm_open(name.c_str(), O_RDWR, 0600));
  struct stat found{};
  if (!file.valid() || ::fstat(file.get(), &found) != 0) return refused(std::strerror(errno));
  if (found.st_uid != ::geteuid() || (found.st_mode & 0077) != 0) return refused("it is not ours alone");
  // The system rounds sizes up to pages.
  if (static_cast<uint64_t>(found.st_size) < bytes) return refused("it is not what was announced");
  SharedSegment segment;
  SHOAL_TRY(segment.bytes_, map(file, bytes));
  return segment;
}

void SharedSegment::hide() {
  if (!name_.empty()) ::shm_unlink(name_.c_str());
  file_.reset();
  name_.clear();
}

SharedSegment::~SharedSegment() {
  hide();
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

uint64_t sharing_domain() {
  char boot[64] = {};
  size_t size = sizeof(boot) - 1;
  if (::sysctlbyname("kern.bootsessionuuid", boot, &size, nullptr, 0) != 0) return 0;
  return std::hash<std::string>()(fmt::format("{} {}", boot, ::geteuid()));
}

}  // namespace shoal
#endif
