#include "cli/state_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include "base/system.h"

namespace shoal::cli {
namespace {

constexpr size_t kNodeIdDigits = 16;

bool is_node_id(std::string_view text) {
  return text.size() == kNodeIdDigits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

// The id kept in the file; a new one when there is none, or when it was damaged.
Result<std::string> read_or_make_id(const std::filesystem::path& file) {
  if (auto kept = read_text_file(file, 64)) {
    while (!kept->empty() && kept->back() == '\n') kept->pop_back();
    if (is_node_id(*kept)) return std::move(*kept);
  }
  const std::string id = fmt::format("{:016x}", random_u64());
  if (auto written = write_file_atomically(file, as_bytes(id + "\n")); !written) {
    return fail(
        written.error().code, written.error().message,
        "see that its disk has space and may be written to, or choose another directory with --data DIR");
  }
  return id;
}

}  // namespace

Result<StateDirectory> StateDirectory::open(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return fail(ErrorCode::io,
                fmt::format("cannot make the data directory '{}': {}", directory.string(), error.message()),
                "choose another with --data DIR");
  }
  const auto lock_path = directory / "lock";
  FileDescriptor lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid()) {
    return fail(ErrorCode::io, fail_errno("cannot open", lock_path.string()).error().message,
                "choose another data directory with --data DIR");
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorCode::conflict,
                fmt::format("another node uses the data directory '{}'", directory.string()),
                "stop it, or give this node its own with --data DIR");
  }
  SHOAL_TRY(std::string id, read_or_make_id(directory / "node-id"));
  return StateDirectory(directory, std::move(lock), std::move(id));
}

}  // namespace shoal::cli
