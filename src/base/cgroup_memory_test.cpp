// Memory that made-up control groups leave.
#include "base/cgroup_memory.h"

#include <fstream>
#include <gtest/gtest.h>

#include "base/system.h"

namespace shoal {
namespace {

class Cgroups : public ::testing::Test {
 protected:
  Cgroups() { std::filesystem::remove_all(root); }
  ~Cgroups() override { std::filesystem::remove_all(root); }
  void write(const std::string& file, const std::string& text) {
    std::filesystem::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text;
  }
  // Version 2: a group's limits and usage.
  void group(const std::string& path, const std::string& max, const std::string& high, uint64_t current) {
    const std::string folder = "sys/fs/cgroup" + path;
    write(folder + "/memory.max", max + "\n");
    write(folder + "/memory.high", high + "\n");
    write(folder + "/memory.current", std::to_string(current) + "\n");
  }
  void expect(uint64_t limit, uint64_t available) {
    const CgroupMemory memory = cgroup_memory(root);
    EXPECT_EQ(memory.limit_bytes, limit);
    EXPECT_EQ(memory.available_bytes, available);
  }
  const std::filesystem::path root = std::filesystem::path(testing::TempDir()) / "shoal-cgroups";
};

TEST_F(Cgroups, TheTightestGroupOnTheWayUpCounts) {
  write("proc/self/cgroup", "0::/a/b/c\n");
  group("/a/b/c", "max", "max", 10);
  group("/a/b", "8000", "max", 1000);
  group("/a", "9000", "max", 8500);
  expect(8000, 500);
}

TEST_F(Cgroups, TheHighMarkBindsAsTheLimitDoes) {
  write("proc/self/cgroup", "0::/a\n");
  group("/a", "8000", "3000", 1000);
  expect(3000, 2000);
  group("/a", "8000", "3000", 4000);  // over it already
  expect(3000, 0);
}

TEST_F(Cgroups, PagesOfFilesThatCanBeDroppedAreAvailable) {
  write("proc/self/cgroup", "0::/a\n");
  group("/a", "8000", "max", 7000);
  write("sys/fs/cgroup/a/memory.stat", "anon 2000\nfile 5000\ninactive_file 4000\nactive_file 1000\n");
  expect(8000, 5000);
  write("sys/fs/cgroup/a/memory.stat", "inactive_file 99999999\n");
  expect(8000, 8000);
}

TEST_F(Cgroups, AGroupThatIsNotVisibleFallsBackToTheMount) {
  write("proc/self/cgroup", "0::/docker/0123\n");
  write("sys/fs/cgroup/memory.max", "5000\n");
  write("sys/fs/cgroup/memory.current", "1000\n");
  expect(5000, 4000);
}

TEST_F(Cgroups, VersionOneIsReadWithAllGroupsAbove) {
  write("proc/self/cgroup", "12:cpu,cpuacct:/x\n7:memory:/a/b\n1:name=systemd:/y\n0::/\n");
  const std::string memory = "sys/fs/cgroup/memory";
  write(memory + "/memory.limit_in_bytes", "9223372036854771712\n");
  write(memory + "/a/memory.limit_in_bytes", "6000\n");
  write(memory + "/a/memory.usage_in_bytes", "5000\n");
  write(memory + "/a/memory.stat", "cache 1\ntotal_inactive_file 700\n");
  write(memory + "/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  expect(6000, 1700);
}

TEST_F(Cgroups, NothingBindsWhereThereIsNothingOrRubbish) {
  expect(UINT64_MAX, UINT64_MAX);
  write("proc/self/cgroup", "rubbish\n::\n0::not-absolute\n0::/../../etc\n\n");
  write("sys/fs/cgroup/memory.max", "many\n");
  expect(UINT64_MAX, UINT64_MAX);
}

TEST(System, AvailableMemoryIsPartOfTheWhole) {
  EXPECT_GT(available_memory_bytes(), 0u);
  EXPECT_LE(available_memory_bytes(), total_memory_bytes());
}

}  // namespace
}  // namespace shoal
