// A worker process whose node goes away or talks nonsense; main() is in worker_process_test.cpp.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "base/process.h"
#include "base/socket.h"
#include "base/system.h"

namespace shoal::worker {
namespace {

TEST(WorkerWithoutNode, LeavesWhenTheNodesEndCloses) {
  ChildProcess child =
      spawn_process(executable_path(), {"worker", "--fd", std::to_string(kChildSocket)}).value();
  EXPECT_FALSE(reap_process(child.pid).has_value());
  child.socket.reset();
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid, &status, 0), child.pid);
  EXPECT_EQ(describe_exit(status), "exit code 0");
}

TEST(WorkerWithoutNode, AMalformedMessageEndsIt) {
  ChildProcess child =
      spawn_process(executable_path(), {"worker", "--fd", std::to_string(kChildSocket)}).value();
  Bytes noise(64, std::byte{0x7f});
  iovec part{noise.data(), noise.size()};
  ASSERT_EQ(send_some(child.socket.get(), std::span(&part, 1)).bytes, noise.size());
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid, &status, 0), child.pid);
  EXPECT_EQ(describe_exit(status), "exit code 1");
}

}  // namespace
}  // namespace shoal::worker
