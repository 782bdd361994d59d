#ifdef __APPLE__
#include <mach-o/dyld.h>
#include <mach/mach.h>
#include <stdlib.h>
#include <sys/sysctl.h>

#include <algorithm>

#include "base/system.h"

namespace shoal {
namespace {

template <class T>
T sysctl_value(const char* name, T fallback) {
  T value{};
  size_t size = sizeof(value);
  return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 ? value : fallback;
}

}  // namespace

std::string cpu_name() {
  char text[256] = {};
  size_t size = sizeof(text) - 1;
  return ::sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0) == 0 ? text : "unknown CPU";
}

bool cpu_has_crc32c() { return true; }  // every Apple processor, and every x86-64 that runs a supported macOS

bool allow_tile_registers() { return false; }  // no Mac has them

ArmExtensions arm_extensions() {
  return {.dot_products = sysctl_value<int>("hw.optional.arm.FEAT_DotProd", 0) != 0,
          .int8_matrices = sysctl_value<int>("hw.optional.arm.FEAT_I8MM", 0) != 0};
}

unsigned usable_core_count() { return static_cast<unsigned>(std::max(1, sysctl_value<int>("hw.perflevel0.logicalcpu", sysctl_value<int>("hw.logicalcpu", 1)))); }

uint64_t total_memory_bytes() { return sysctl_value<uint64_t>("hw.memsize", 0); }

uint64_t available_memory_bytes() {
  vm_statistics64_data_t statistics{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (::host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&statistics), &count) != KERN_SUCCESS) return 0;
  return (uint64_t{statistics.free_count} + statistics.inactive_count + statistics.purgeable_count) * sysctl_value<int>("hw.pagesize", 16384);
}

std::filesystem::path executable_path() {
  char text[4096];
  uint32_t size = sizeof(text);
  if (::_NSGetExecutablePath(text, &size) != 0) return {};
  std::error_code error;
  return std::filesystem::canonical(text, error);
}

uint64_t random_u64() {
  uint64_t value = 0;
  ::arc4random_buf(&value, sizeof(value));
  return value;
}

}  // namespace shoal
#endif
