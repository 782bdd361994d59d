#include "cli/doctor_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <ifaddrs.h>
#include <net/if.h>
#include <set>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/socket.h"
#include "base/system.h"
#include "cli/http_client.h"
#include "cli/terminal.h"
#include "engine/cpu/kernels.h"
#include "hub/model_store.h"

namespace shoal::cli {
namespace {

constexpr int64_t kEarliestPlausibleTime = 1735689600;  // 1 January 2025
constexpr uint64_t kWantedDiskBytes = uint64_t{1} << 30;
constexpr uint64_t kWantedMemoryBytes = uint64_t{1} << 30;
constexpr rlim_t kWantedDescriptors = 4096;

std::string_view status_name(CheckStatus status) {
  switch (status) {
    case CheckStatus::ok:
      return "ok";
    case CheckStatus::warn:
      return "warn";
    case CheckStatus::fail:
      return "fail";
  }
  return "fail";
}

Check check_port(uint16_t port) {
  const std::string name = "port";
  if (const auto client = HttpClient::to(fmt::format("http://localhost:{}", port), {})) {
    const auto health = client->json("GET", "/health");
    if (health)
      return {name, CheckStatus::ok, fmt::format("a node answers at http://localhost:{}", port), {}};
    if (health.error().code != ErrorCode::unavailable) {
      return {name, CheckStatus::fail, fmt::format("port {} is in use by a program that is not shoal", port),
              fmt::format("stop it, or start shoal with --port {}", port + 1)};
    }
  }
  const auto address = SocketAddress::parse("127.0.0.1", port);
  const auto listening = address ? listen_tcp(*address, 1) : std::unexpected(address.error());
  if (listening) return {name, CheckStatus::ok, fmt::format("port {} is free", port), {}};
  return {name, CheckStatus::fail, fmt::format("port {} cannot be used: {}", port, listening.error().message),
          fmt::format("start shoal with --port {}", port + 1)};
}

Check check_multicast() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0)
    return {"multicast", CheckStatus::warn, "cannot list the network interfaces",
            "name a peer with --peer HOST:PORT"};
  std::set<std::string> able;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    const bool usable = (entry->ifa_flags & IFF_UP) != 0 && (entry->ifa_flags & IFF_LOOPBACK) == 0 &&
                        (entry->ifa_flags & IFF_MULTICAST) != 0;
    if (usable && entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == AF_INET)
      able.insert(entry->ifa_name);
  }
  ::freeifaddrs(list);
  if (!able.empty()) {
    return {"multicast",
            CheckStatus::ok,
            fmt::format("other machines can be found over {}", fmt::join(able, ", ")),
            {}};
  }
  return {"multicast", CheckStatus::warn,
          "no network interface with an address can do multicast: other machines are not found by themselves",
          "connect to a network, or name a peer with --peer HOST:PORT"};
}

Check check_clock() {
  if (unix_seconds() >= kEarliestPlausibleTime)
    return {"clock", CheckStatus::ok, "the clock shows a plausible time", {}};
  return {"clock", CheckStatus::fail, "the clock shows a time in the past", "set it, or let NTP set it"};
}

Check check_data_directory(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::path existing = directory;
  while (!existing.empty() && !std::filesystem::exists(existing, error) && existing != existing.parent_path())
    existing = existing.parent_path();
  if (existing.empty()) existing = ".";
  if (::access(existing.c_str(), W_OK) != 0) {
    return {"data directory", CheckStatus::fail, fmt::format("may not write to '{}'", existing.string()),
            "choose another with --data DIR, or mend its permissions"};
  }
  struct statvfs space{};
  if (::statvfs(existing.c_str(), &space) != 0) {
    return {"data directory", CheckStatus::warn,
            fmt::format("cannot tell how much space '{}' has", existing.string()),
            "see that the disk is well"};
  }
  const uint64_t free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
  const std::string message = fmt::format("'{}' has {} free", directory.string(), format_bytes(free_bytes));
  if (free_bytes < kWantedDiskBytes)
    return {"data directory", CheckStatus::warn, message,
            "free some space, or choose another with --data DIR"};
  return {"data directory", CheckStatus::ok, message, {}};
}

Check check_memory() {
  const uint64_t available = available_memory_bytes();
  const std::string message =
      fmt::format("{} of {} are available", format_bytes(available), format_bytes(total_memory_bytes()));
  if (available < kWantedMemoryBytes)
    return {"memory", CheckStatus::warn, message, "close other programs: models live in memory"};
  return {"memory", CheckStatus::ok, message, {}};
}

Check check_huge_pages() {
  const auto setting = read_text_file("/sys/kernel/mm/transparent_hugepage/enabled", 4096);
  if (!setting) return {"huge pages", CheckStatus::ok, "this system manages page sizes itself", {}};
  if (setting->contains("[never]")) {
    return {"huge pages", CheckStatus::warn, "huge pages are off: models run some percent slower",
            "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"};
  }
  return {"huge pages", CheckStatus::ok, "huge pages are given when asked for", {}};
}

Check check_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string message = fmt::format("{} files and connections may be open at once", limit.rlim_cur);
  if (limit.rlim_cur >= kWantedDescriptors) return {"open files", CheckStatus::ok, message, {}};
  if (limit.rlim_max >= kWantedDescriptors)
    return {"open files", CheckStatus::ok, message + "; a node raises that itself", {}};
  return {"open files", CheckStatus::warn, message,
          fmt::format("raise it: ulimit -n {}", kWantedDescriptors)};
}

Check check_locked_memory() {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  return {"locked memory",
          CheckStatus::ok,
          limit.rlim_cur == RLIM_INFINITY
              ? std::string("unlimited")
              : fmt::format("{} may be locked (TCP needs none)", format_bytes(limit.rlim_cur)),
          {}};
}

Check check_processor() {
  std::string isas;
  for (const auto isa : engine::cpu::available_isas())
    isas += fmt::format("{}{}", isas.empty() ? "" : ", ", engine::cpu::to_string(isa));
  const bool fast = engine::cpu::available_isas().size() > 1;
  return {"processor", fast ? CheckStatus::ok : CheckStatus::warn,
          fmt::format("{}, {} cores, kernels: {}", cpu_name(), usable_core_count(), isas),
          fast ? std::string() : "there are no fast kernels for this processor yet"};
}

Check check_models(const std::filesystem::path& data_directory) {
  const hub::ModelStore store(hub::ModelStore::default_roots(data_directory));
  std::string names;
  for (const auto& model : store.list()) names += fmt::format("{}{}", names.empty() ? "" : ", ", model.name);
  if (!names.empty()) return {"models", CheckStatus::ok, names, {}};
  return {"models", CheckStatus::warn, "no model was found",
          fmt::format("put .gguf files into '{}', or give a path", (data_directory / "models").string())};
}

}  // namespace

std::vector<Check> run_checks(const DoctorOptions& options) {
  return {check_port(options.port),
          check_multicast(),
          check_clock(),
          check_data_directory(options.data_directory),
          check_memory(),
          check_huge_pages(),
          check_descriptors(),
          check_locked_memory(),
          check_processor(),
          check_models(options.data_directory)};
}

int run_doctor(const DoctorOptions& options) {
  bool failed = false;
  JsonArray list;
  Table table({{"CHECK"}, {"STATUS"}, {"FOUND"}});
  std::string hints;
  for (const Check& check : run_checks(options)) {
    failed = failed || check.status == CheckStatus::fail;
    list.push_back(JsonObject{{"name", check.name},
                              {"status", status_name(check.status)},
                              {"message", check.message},
                              {"hint", check.hint}});
    table.add({check.name, std::string(status_name(check.status)), check.message});
    if (!check.hint.empty()) hints += fmt::format("{}: {}\n", check.name, check.hint);
  }
  if (options.json) {
    fmt::print("{}\n", to_pretty_text(JsonObject{{"checks", std::move(list)}}));
  } else {
    fmt::print("{}{}{}", table.text(), hints.empty() ? "" : "\nWhat to do\n", hints);
  }
  return failed ? 1 : 0;
}

}  // namespace shoal::cli
