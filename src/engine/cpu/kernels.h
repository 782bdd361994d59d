// Which kernels this machine can run, and the choice among them.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "engine/cpu/kernel_table.h"

namespace shoal::engine::cpu {

std::string_view to_string(Isa isa);
// The Isa named by `text` ("portable", "avx2", "avx512", "amx", "neon"); invalid_argument names the known
// ones.
Result<Isa> parse_isa(std::string_view text);

// What this machine and this build can run, slowest first; portable is always there.
std::span<const Isa> available_isas();

// The kernels of `wanted`, or the fastest when nullopt; unsupported when this machine lacks it. Of an
// instruction set with several tables, the last that this machine can run.
Result<const Kernels*> select_kernels(std::optional<Isa> wanted);

// Every table that this machine can run, slowest first; tests compare them all. Neon has several, for what
// processors have beside it.
struct KernelVariant {
  std::string_view name;
  const Kernels* kernels;
};
std::span<const KernelVariant> kernel_variants();

}  // namespace shoal::engine::cpu
