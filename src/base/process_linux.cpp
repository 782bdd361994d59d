#ifdef __linux__
#include <cerrno>
#include <signal.h>
#include <string>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/process.h"

namespace shoal {

void set_process_name(std::string_view name) {
  ::prctl(PR_SET_NAME, std::string(name).c_str(), 0, 0, 0);
}

namespace detail {

void tie_to_parent(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
}

void close_descriptors_from(int first) {
  if (::close_range(static_cast<unsigned>(first), ~0u, 0) == 0) return;
  long limit = ::sysconf(_SC_OPEN_MAX);
  for (int fd = first; fd < limit; ++fd) ::close(fd);
}

}  // namespace detail
}  // namespace shoal
#endif
