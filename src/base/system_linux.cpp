#ifdef __linux__
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <fstream>

#include "base/assert.h"
#include "base/cgroup_memory.h"
#include "base/cores.h"
#include "base/system.h"

namespace shoal {
namespace {

uint64_t meminfo_bytes(std::string_view key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  return 0;
}

// The least processor time that our cgroup or one above it may have, in cores; UINT_MAX without a limit.
unsigned cgroup_cores() {
  unsigned least = UINT_MAX;
  std::ifstream self("/proc/self/cgroup");
  for (std::string line; std::getline(self, line);) {
    if (!line.starts_with("0::/")) continue;
    for (std::string group = line.substr(3);; group.resize(group.rfind('/'))) {
      std::ifstream file("/sys/fs/cgroup" + group + "/cpu.max");
      if (std::string text; std::getline(file, text)) least = std::min(least, parse_core_quota(text).value_or(least));
      if (group.empty()) break;
    }
  }
  return least;
}

}  // namespace

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    if (size_t colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

bool cpu_has_crc32c() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__)
  constexpr unsigned long kHwcapCrc32 = 1 << 7;
  return (::getauxval(AT_HWCAP) & kHwcapCrc32) != 0;
#else
  return false;
#endif
}

bool allow_tile_registers() {
#if defined(__x86_64__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

ArmExtensions arm_extensions() {
#if defined(__aarch64__)
  constexpr unsigned long kHwcapDotProducts = 1 << 20, kHwcap2Int8Matrices = 1 << 13;
  return {.dot_products = (::getauxval(AT_HWCAP) & kHwcapDotProducts) != 0,
          .int8_matrices = (::getauxval(AT_HWCAP2) & kHwcap2Int8Matrices) != 0};
#else
  return {};
#endif
}

unsigned usable_core_count() {
  return std::min(static_cast<unsigned>(usable_cores().size()), cgroup_cores());
}

uint64_t total_memory_bytes() { return std::min(meminfo_bytes("MemTotal:"), cgroup_memory("/").limit_bytes); }

uint64_t available_memory_bytes() {
  return std::min(meminfo_bytes("MemAvailable:"), cgroup_memory("/").available_bytes);
}

std::filesystem::path executable_path() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error);
}

uint64_t random_u64() {
  uint64_t value = 0;
  ssize_t got = ::getrandom(&value, sizeof(value), 0);
  SHOAL_ASSERT(got == sizeof(value));
  return value;
}

}  // namespace shoal
#endif
