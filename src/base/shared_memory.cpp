#include "base/shared_memory.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

namespace shoal {

Result<SharedMemory> SharedMemory::open(const std::string& name, size_t bytes) {
  const std::string path = fmt::format("/{}-{}", name, ::getuid());
  const auto refused = [&](std::string_view why) {
    return fail(ErrorCode::unavailable, fmt::format("shared memory '{}': {}", path, why));
  };
  FileDescriptor file(::shm_open(path.c_str(), O_RDWR | O_CREAT, 0600));
  if (!file.valid()) return refused(std::strerror(errno));
  struct stat found{};
  if (::fstat(file.get(), &found) != 0) return refused(std::strerror(errno));
  if (found.st_uid != ::getuid() || (found.st_mode & 0077) != 0) return refused("it is not ours alone");
  // Growing it twice at once does no harm; macOS lets it be done only once.
  if (static_cast<uint64_t>(found.st_size) < bytes &&
      ::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0 &&
      (::fstat(file.get(), &found) != 0 || static_cast<uint64_t>(found.st_size) < bytes))
    return refused(std::strerror(errno));
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return refused(std::strerror(errno));
  SharedMemory shared;
  shared.bytes_ = {static_cast<std::byte*>(memory), bytes};
  return shared;
}

SharedMemory::~SharedMemory() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace shoal
