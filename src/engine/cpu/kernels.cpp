#include "engine/cpu/kernels.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <vector>

#include "base/log.h"
#include "base/system.h"
#include "engine/cpu/kernel_check.h"
#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {
namespace {

std::vector<KernelVariant> detect() {
  std::vector<KernelVariant> found = {{"portable", &portable_kernels()}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2) found.push_back({"avx2", &avx2_kernels()});
  if (avx2 && __builtin_cpu_supports("avxvnni")) found.push_back({"avx2 with vnni", &avx2_vnni_kernels()});
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni")) {
    found.push_back({"avx512", &avx512_kernels()});
    if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") && allow_tile_registers()) {
      found.push_back({"amx", &amx_kernels()});
    }
  }
#elif defined(__aarch64__)
  const ArmExtensions has = arm_extensions();
  found.push_back({"neon", &neon_kernels()});
  if (has.dot_products) found.push_back({"neon with dot products", &neon_dotprod_kernels()});
  if (has.dot_products && has.int8_matrices)
    found.push_back({"neon with products of int8 matrices", &neon_i8mm_kernels()});
#endif
  // Rather slow than other tokens than every other node's.
  std::erase_if(found, [](const KernelVariant& variant) {
    if (gives_portable_bits(*variant.kernels)) return false;
    log_warning("engine", "kernels for {} compute something else here; they are left out", variant.name);
    return true;
  });
  return found;
}

constexpr std::array kNames = {std::string_view("portable"), std::string_view("avx2"),
                               std::string_view("avx512"), std::string_view("amx"), std::string_view("neon")};

}  // namespace

std::string_view to_string(Isa isa) {
  return kNames[static_cast<size_t>(isa)];
}

Result<Isa> parse_isa(std::string_view text) {
  auto found = std::ranges::find(kNames, text);
  if (found == kNames.end()) {
    return fail(ErrorCode::invalid_argument, fmt::format("unknown instruction set '{}'", text),
                "use portable, avx2, avx512, amx or neon");
  }
  return static_cast<Isa>(found - kNames.begin());
}

std::span<const KernelVariant> kernel_variants() {
  static const std::vector<KernelVariant> found = detect();
  return found;
}

std::span<const Isa> available_isas() {
  static const std::vector<Isa> found = [] {
    std::vector<Isa> isas;
    for (const KernelVariant& variant : kernel_variants()) {
      if (isas.empty() || isas.back() != variant.kernels->isa) isas.push_back(variant.kernels->isa);
    }
    return isas;
  }();
  return found;
}

Result<const Kernels*> select_kernels(std::optional<Isa> wanted) {
  const Isa isa = wanted.value_or(available_isas().back());
  const Kernels* fastest = nullptr;
  for (const KernelVariant& variant : kernel_variants()) {
    if (variant.kernels->isa == isa) fastest = variant.kernels;
  }
  if (fastest == nullptr) {
    return fail(ErrorCode::unsupported, fmt::format("this machine cannot run {} kernels", to_string(isa)),
                "leave the choice of instruction set to shoal");
  }
  return fastest;
}

}  // namespace shoal::engine::cpu
