// The memory that control groups leave to this process: its own group and every one above it bound it, each
// by memory.max and memory.high (version 2) or memory.limit_in_bytes (version 1). Linux; elsewhere there are
// none.
#pragma once

#include <cstdint>
#include <filesystem>

namespace shoal {

struct CgroupMemory {  // UINT64_MAX: no bound
  uint64_t limit_bytes = UINT64_MAX;
  uint64_t available_bytes =
      UINT64_MAX;  // what the tightest group has left; pages of files it can drop count
};

// Reads `root`/proc/self/cgroup and below `root`/sys/fs/cgroup; `root` is "/" but in tests. Files that are
// missing or damaged bound nothing.
CgroupMemory cgroup_memory(const std::filesystem::path& root);

}  // namespace shoal
