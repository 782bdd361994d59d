// The figures of this machine from an earlier start, in a file of the data directory, so that only the first
// start measures. They are for one machine only: a disk that moved into another one, more memory, other
// instructions or another shoal mean measuring again.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "serving/machine_figures.h"

namespace shoal::serving {

struct MachineIdentity {
  std::string cpu;
  unsigned threads = 0;  // that compute
  uint64_t memory_bytes = 0;
  std::string isa;  // that the kernels use
  std::string version;

  // Of this machine, computing with so many threads and kernels of `isa` (empty: the best).
  static MachineIdentity here(unsigned threads, std::string_view isa);
};

// nullopt when there is no file, it is damaged, or it is another machine's.
std::optional<MachineFigures> load_figures(const std::filesystem::path& data_directory,
                                           const MachineIdentity& identity);
Result<> store_figures(const std::filesystem::path& data_directory, const MachineIdentity& identity,
                       const MachineFigures& figures);

}  // namespace shoal::serving
