#ifdef __APPLE__
#include <pthread.h>
#include <string>
#include <sys/types.h>
#include <unistd.h>

#include "base/process.h"

namespace shoal {

void set_process_name(std::string_view name) {
  ::pthread_setname_np(std::string(name).c_str());
}

namespace detail {

void tie_to_parent(pid_t) {}  // no such call here: the end of the socket tells the child

void close_descriptors_from(int first) {
  int limit = ::getdtablesize();
  for (int fd = first; fd < limit; ++fd) ::close(fd);
}

}  // namespace detail
}  // namespace shoal
#endif
