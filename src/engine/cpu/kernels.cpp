#include "engine/cpu/kernels.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <vector>

#include "engine/cpu/tables.h"

namespace shoal::engine::cpu {
namespace {

std::vector<Isa> detect() {
  std::vector<Isa> found = {Isa::portable};
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2) found.push_back(Isa::avx2);
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni")) {
    found.push_back(Isa::avx512);
  }
#endif
  return found;
}

const Kernels& table_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return avx2_kernels();
  if (isa == Isa::avx512) return avx512_kernels();
#endif
  (void)isa;
  return portable_kernels();
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

std::span<const Isa> available_isas() {
  static const std::vector<Isa> found = detect();
  return found;
}

Result<const Kernels*> select_kernels(std::optional<Isa> wanted) {
  std::span<const Isa> available = available_isas();
  Isa isa = wanted.value_or(available.back());
  if (std::ranges::find(available, isa) == available.end()) {
    return fail(ErrorCode::unsupported, fmt::format("this machine cannot run {} kernels", to_string(isa)),
                "leave the choice of instruction set to shoal");
  }
  return &table_of(isa);
}

}  // namespace shoal::engine::cpu
