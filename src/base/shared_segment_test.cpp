#include "base/shared_segment.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace shoal {
namespace {

constexpr size_t kBytes = 64 << 10;

TEST(SharedSegment, AnotherProcessOpensItByNameAndWritesIntoIt) {
  auto segment = SharedSegment::create(kBytes);
  ASSERT_TRUE(segment) << segment.error().text();
  ASSERT_EQ(segment->bytes().size(), kBytes);
  pid_t child = ::fork();
  if (child == 0) {
    auto opened = SharedSegment::open(segment->name(), kBytes);
    if (opened) opened->bytes()[kBytes - 1] = std::byte{7};
    ::_exit(opened ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(segment->bytes()[kBytes - 1], std::byte{7});
}

TEST(SharedSegment, AHiddenOneIsNotOpened) {
  auto segment = SharedSegment::create(kBytes);
  ASSERT_TRUE(segment);
  const std::string name = segment->name();
  EXPECT_TRUE(SharedSegment::open(name, kBytes));
  segment->hide();
  EXPECT_FALSE(SharedSegment::open(name, kBytes));
  segment->bytes()[0] = std::byte{1};  // it is still there for those who have it
}

TEST(SharedSegment, WhatIsNotWhatWasAnnouncedIsRefused) {
  auto segment = SharedSegment::create(kBytes);
  ASSERT_TRUE(segment);
  EXPECT_FALSE(SharedSegment::open(segment->name(), 4 * kBytes));
  for (const char* name :
       {"", "/", "1", "0/0", "1/0", "x/3", "4242/../1/3", "99999999999/1", "/etc/passwd"}) {
    EXPECT_EQ(SharedSegment::open(name, kBytes).error().code, ErrorCode::unavailable) << name;
  }
}

TEST(SharingDomain, IsTheSameForAProcessAndItsChild) {
  ASSERT_NE(sharing_domain(), 0u);
  pid_t child = ::fork();
  const uint64_t ours = sharing_domain();
  if (child == 0) ::_exit(static_cast<int>(ours & 0x7f));
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(ours & 0x7f));
}

}  // namespace
}  // namespace shoal
