#include "base/process.h"

#include <array>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/socket.h"

namespace shoal {
namespace {

// Everything the child writes to its socket.
std::string read_to_end(const FileDescriptor& socket) {
  std::string text;
  std::array<std::byte, 256> chunk;
  while (wait_readable(socket.get(), std::chrono::steady_clock::now() + seconds(30))) {
    Transfer transfer = receive_some(socket.get(), chunk);
    if (transfer.status == TransferStatus::would_block) continue;
    if (transfer.status != TransferStatus::moved) return text;
    text += as_text(std::span(chunk).first(transfer.bytes));
  }
  return text;
}

std::string wait_and_describe(pid_t pid) {
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return describe_exit(status);
}

TEST(SpawnProcess, TheChildTalksOnItsSocketAndItsExitIsDescribed) {
  ChildProcess child = spawn_process("/bin/sh", {"-c", "echo \"$0 $1\" >&3; exit 7", "zero", "one"}).value();
  EXPECT_EQ(read_to_end(child.socket), "zero one\n");
  EXPECT_EQ(wait_and_describe(child.pid), "exit code 7");
}

TEST(SpawnProcess, TheChildHasNoOtherDescriptorOfOurs) {
  int ours = ::fcntl(STDERR_FILENO, F_DUPFD, kChildSocket + 1);  // without close-on-exec
  ASSERT_GT(ours, kChildSocket);
  ASSERT_LT(ours, 10) << "a shell takes one digit";
  std::string script =
      "if (true >&" + std::to_string(ours) + ") 2>/dev/null; then echo open >&3; else echo closed >&3; fi";
  ChildProcess probe = spawn_process("/bin/sh", {"-c", script}).value();
  EXPECT_EQ(read_to_end(probe.socket), "closed\n");
  wait_and_describe(probe.pid);
  ::close(ours);
}

TEST(SpawnProcess, AKilledChildIsReapedOnce) {
  ChildProcess child = spawn_process("/bin/sh", {"-c", "read line <&3"}).value();
  EXPECT_FALSE(reap_process(child.pid).has_value());
  ::kill(child.pid, SIGKILL);
  std::optional<int> status;
  while (!status) status = reap_process(child.pid);
  EXPECT_EQ(describe_exit(*status), "signal 9 (Killed)");
  EXPECT_FALSE(reap_process(child.pid).has_value());
}

TEST(SpawnProcess, AProgramThatDoesNotExistIsAnError) {
  auto child = spawn_process("/no/such/program", {});
  ASSERT_FALSE(child);
  EXPECT_EQ(child.error().code, ErrorCode::not_found);
}

TEST(SocketAddress, TakesNumericAddressesOnly) {
  EXPECT_EQ(SocketAddress::parse("10.0.0.1", 80).value().text(), "10.0.0.1:80");
  EXPECT_EQ(SocketAddress::parse("::1", 4000).value().text(), "[::1]:4000");
  for (const char* wrong : {"", "localhost", "10.0.0", "1.2.3.4.5", "::g"}) {
    auto address = SocketAddress::parse(wrong, 80);
    ASSERT_FALSE(address) << wrong << " became " << address->text();
    EXPECT_EQ(address.error().code, ErrorCode::invalid_argument);
  }
}

TEST(ListenTcp, APortThatIsTakenIsAConflict) {
  auto first = listen_tcp(SocketAddress::parse("127.0.0.1", 0).value(), 1).value();
  auto second = listen_tcp(SocketAddress::parse("127.0.0.1", local_port(first).value()).value(), 1);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::conflict);
}

}  // namespace
}  // namespace shoal
