// Child processes that talk to us over one Unix socket: start, name, reap. The child gets the socket as
// descriptor kChildSocket, the standard streams, and nothing else of ours; it is in its own process group, so
// that a Ctrl-C in the terminal reaches only the parent, which decides what its children do.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace shoal {

inline constexpr int kChildSocket = 3;

struct ChildProcess {
  pid_t pid = -1;
  FileDescriptor socket;  // our end, non-blocking
};

// `arguments` follow argv[0]. A program that cannot be executed is an Error here, not an exit code later.
// On Linux the child is killed when the calling *thread* ends: start children from a thread that lives long.
Result<ChildProcess> spawn_process(const std::filesystem::path& executable,
                                   const std::vector<std::string>& arguments);

// Collects an ended child without waiting: its wait status, or nullopt while it runs. A child is reaped once.
std::optional<int> reap_process(pid_t pid);
std::string describe_exit(int wait_status);  // "exit code 1", "signal 9 (Killed)"

void set_process_name(std::string_view name);  // as `ps` and `top` show it, where the system allows

namespace detail {
// What differs between systems, called in the child between fork and exec: async-signal-safe calls only.
void tie_to_parent(pid_t parent);
void close_descriptors_from(int first);
}  // namespace detail

}  // namespace shoal
