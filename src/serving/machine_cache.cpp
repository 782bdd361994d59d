#include "serving/machine_cache.h"

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/system.h"
#include "engine/cpu/kernels.h"

namespace shoal::serving {
namespace {

constexpr uint64_t kMaxFileBytes = 64 * limits::kKiB;

std::filesystem::path file_in(const std::filesystem::path& data_directory) {
  return data_directory / "machine.json";
}

JsonObject to_json(const MachineIdentity& identity) {
  return {{"cpu", identity.cpu},
          {"threads", identity.threads},
          // In GiB: systems keep a little more or less for themselves from start to start.
          {"memory_gib", static_cast<int64_t>(identity.memory_bytes / limits::kGiB)},
          {"isa", identity.isa},
          {"version", identity.version}};
}

Result<MachineFigures> read_figures(const std::filesystem::path& data_directory,
                                    const MachineIdentity& identity) {
  SHOAL_TRY(const std::string text, read_text_file(file_in(data_directory), kMaxFileBytes));
  SHOAL_TRY(const JsonObject object, parse_json_object(text, "machine.json"));
  SHOAL_TRY(const JsonObject* machine, get_object(object, "machine"));
  SHOAL_TRY(const JsonObject* figures, get_object(object, "figures"));
  if (machine == nullptr || figures == nullptr)
    return fail(ErrorCode::malformed, "machine.json lacks 'machine' or 'figures'");
  // As text, since a number read may be of another type than the one written.
  if (to_text(*machine) != to_text(to_json(identity)))
    return fail(ErrorCode::not_found, "machine.json is of another machine or another shoal");
  return machine_figures_from_json(*figures);
}

}  // namespace

MachineIdentity MachineIdentity::here(unsigned threads, std::string_view isa) {
  const std::string_view best = engine::cpu::kernel_variants().back().name;
  return {.cpu = cpu_name(),
          .threads = threads,
          .memory_bytes = total_memory_bytes(),
          .isa = std::string(isa.empty() ? best : isa),
          .version = SHOAL_VERSION};
}

std::optional<MachineFigures> load_figures(const std::filesystem::path& data_directory,
                                           const MachineIdentity& identity) {
  Result<MachineFigures> figures = read_figures(data_directory, identity);
  if (figures) return *std::move(figures);
  log_debug("node", "measuring: {}", figures.error().message);
  return std::nullopt;
}

Result<> store_figures(const std::filesystem::path& data_directory, const MachineIdentity& identity,
                       const MachineFigures& figures) {
  std::error_code ignored;  // writing says what is wrong
  std::filesystem::create_directories(data_directory, ignored);
  const JsonObject object{{"machine", to_json(identity)}, {"figures", to_json(figures)}};
  return write_file_atomically(file_in(data_directory), as_bytes(to_pretty_text(object)));
}

}  // namespace shoal::serving
