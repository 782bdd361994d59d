#include "base/cgroup_memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {
namespace {

// Version 1 writes "no limit" as the largest multiple of a page.
constexpr uint64_t kNoLimit = INT64_MAX - (1 << 20);

struct Files {  // of one version of control groups
  std::filesystem::path mount;
  std::string group;  // "/a/b"; "" is the root
  std::vector<const char*> limits;
  const char* usage;
  const char* reclaimable;  // a line of memory.stat
};

uint64_t read_bytes(const std::filesystem::path& path, uint64_t otherwise) {
  std::ifstream file(path);
  uint64_t value = 0;
  return file >> value ? value : otherwise;
}

uint64_t read_statistic(const std::filesystem::path& path, std::string_view name) {
  std::ifstream file(path);
  std::string word;
  for (uint64_t value = 0; file >> word >> value;)
    if (word == name) return value;
  return 0;
}

void narrow(CgroupMemory& memory, const Files& files) {
  for (std::string group = files.group;; group.resize(group.rfind('/'))) {
    const std::filesystem::path folder = files.mount / group.substr(group.empty() ? 0 : 1);
    uint64_t limit = UINT64_MAX;
    for (const char* name : files.limits) limit = std::min(limit, read_bytes(folder / name, UINT64_MAX));
    if (limit < kNoLimit) {
      const uint64_t usage = read_bytes(folder / files.usage, 0);
      const uint64_t held =
          usage - std::min(usage, read_statistic(folder / "memory.stat", files.reclaimable));
      memory.limit_bytes = std::min(memory.limit_bytes, limit);
      memory.available_bytes = std::min(memory.available_bytes, limit - std::min(limit, held));
    }
    if (group.empty()) break;
  }
}

// "/a/b" of a line's path; "" for the root and for what is no absolute path.
std::string group_of(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  return std::string(path.starts_with('/') && path.find("/..") == std::string_view::npos ? path : "");
}

bool names_memory(std::string_view controllers) {
  const std::string list = "," + std::string(controllers) + ",";
  return list.find(",memory,") != std::string::npos;
}

}  // namespace

CgroupMemory cgroup_memory(const std::filesystem::path& root) {
  CgroupMemory memory;
  const std::filesystem::path mount = root / "sys/fs/cgroup";
  std::ifstream self(root / "proc/self/cgroup");
  for (std::string line; std::getline(self, line);) {
    // "0::/group" is version 2, "7:memory:/group" version 1 (cgroups(7)).
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = group_of(std::string_view(line).substr(second + 1));
    if (controllers.empty())
      narrow(memory, {mount, group, {"memory.max", "memory.high"}, "memory.current", "inactive_file"});
    else if (names_memory(controllers))
      narrow(memory, {mount / "memory",
                      group,
                      {"memory.limit_in_bytes"},
                      "memory.usage_in_bytes",
                      "total_inactive_file"});
  }
  return memory;
}

}  // namespace shoal
