#include "base/process.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/socket.h"

namespace shoal {
namespace {

constexpr int kErrorPipe = kChildSocket + 1;
constexpr int kFirstSpare = 64;  // copies go above this, so that dup2 to 3 and 4 overwrites neither source

// Runs in the child; only async-signal-safe calls. Writes errno to the pipe when exec fails.
[[noreturn]] void become(const char* executable, char* const* argv, int socket, int error_pipe,
                         pid_t parent) {
  ::setpgid(0, 0);
  detail::tie_to_parent(parent);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  int spare_socket = ::fcntl(socket, F_DUPFD, kFirstSpare);
  int spare_pipe = ::fcntl(error_pipe, F_DUPFD, kFirstSpare);
  bool ready = spare_socket >= 0 && spare_pipe >= 0 && ::dup2(spare_socket, kChildSocket) >= 0 &&
               ::dup2(spare_pipe, kErrorPipe) >= 0 && ::fcntl(kErrorPipe, F_SETFD, FD_CLOEXEC) == 0;
  if (ready) {
    detail::close_descriptors_from(kErrorPipe + 1);
    ::execv(executable, argv);
    error_pipe = kErrorPipe;
  }
  int number = errno;
  [[maybe_unused]] ssize_t ignored = ::write(error_pipe, &number, sizeof(number));
  ::_exit(127);
}

// 0 when the child has executed its program, else the errno that it reported.
int read_exec_error(int pipe) {
  int number = 0;
  while (true) {
    ssize_t got = ::read(pipe, &number, sizeof(number));
    if (got < 0 && errno == EINTR) continue;
    return got == sizeof(number) ? number : 0;
  }
}

}  // namespace

Result<ChildProcess> spawn_process(const std::filesystem::path& executable,
                                   const std::vector<std::string>& arguments) {
  SHOAL_TRY(auto sockets, socket_pair());
  SHOAL_TRY_VOID(set_blocking(sockets.second.get(), true));
  int pipe_ends[2];
  if (::pipe(pipe_ends) != 0) return fail_errno("cannot create", "pipe");
  FileDescriptor error_read(pipe_ends[0]);
  FileDescriptor error_write(pipe_ends[1]);
  ::fcntl(error_read.get(), F_SETFD, FD_CLOEXEC);
  ::fcntl(error_write.get(), F_SETFD, FD_CLOEXEC);

  std::vector<std::string> words = arguments;
  words.insert(words.begin(), executable.native());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  pid_t parent = ::getpid();
  pid_t pid = ::fork();
  if (pid < 0) return fail_errno("cannot start", executable.native());
  if (pid == 0) become(executable.c_str(), argv.data(), sockets.second.get(), error_write.get(), parent);
  error_write.reset();
  if (int number = read_exec_error(error_read.get()); number != 0) {
    ::waitpid(pid, nullptr, 0);
    errno = number;
    return fail_errno("cannot start", executable.native());
  }
  return ChildProcess{pid, std::move(sockets.first)};
}

std::optional<int> reap_process(pid_t pid) {
  int status = 0;
  pid_t ended = ::waitpid(pid, &status, WNOHANG);
  if (ended == pid) return status;
  return std::nullopt;
}

std::string describe_exit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    int number = WTERMSIG(wait_status);
    return fmt::format("signal {} ({})", number, ::strsignal(number));
  }
  return fmt::format("exit code {}", WEXITSTATUS(wait_status));
}

}  // namespace shoal
