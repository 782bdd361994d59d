// Inline assembly throughout: no function compiled for a wider instruction set leaks into the program.
#include "compute_peak.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "figures.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace shoal::bench {
namespace {

// Sixteen accumulators hide the latency of any of these instructions.
#define SHOAL_TIMES_16(line)                                                                                 \
  line(0) line(1) line(2) line(3) line(4) line(5) line(6) line(7) line(8) line(9) line(10) line(11) line(12) \
      line(13) line(14) line(15)
#define SHOAL_TIMES_12(line) \
  line(0) line(1) line(2) line(3) line(4) line(5) line(6) line(7) line(8) line(9) line(10) line(11)
#define SHOAL_ALL_VECTORS                                                                                    \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
      "xmm13", "xmm14", "xmm15"

#if defined(__x86_64__)

// Operands as in real use: the clock may depend on how many bits switch.
alignas(64) constexpr std::array<uint8_t, 128> kBytes = [] {
  std::array<uint8_t, 128> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 + 11);
  return bytes;
}();
alignas(64) constexpr std::array<float, 16> kFloats = {1.5f,  -0.25f, 0.75f, -1.25f, 0.5f,  -2.5f,
                                                       1.75f, -0.5f,  2.5f,  -1.5f,  1.25f, -0.75f,
                                                       3.5f,  -3.5f,  0.25f, -1.75f};

#define SHOAL_LINE(n) "vpdpbusd %%zmm17, %%zmm16, %%zmm" #n "\n"
void vnni_512(uint64_t turns) {
  asm volatile("vmovdqu64 (%1), %%zmm16\n vmovdqu64 64(%1), %%zmm17\n 1:\n" SHOAL_TIMES_16(
                   SHOAL_LINE) "dec %0\n jnz 1b\n vzeroupper\n"
               : "+r"(turns)
               : "r"(kBytes.data())
               : SHOAL_ALL_VECTORS, "cc", "memory");
}
#undef SHOAL_LINE

#define SHOAL_LINE(n) "%{vex%} vpdpbusd %%ymm13, %%ymm12, %%ymm" #n "\n"
void vnni_256(uint64_t turns) {
  asm volatile("vmovdqu (%1), %%ymm12\n vmovdqu 32(%1), %%ymm13\n 1:\n" SHOAL_TIMES_12(
                   SHOAL_LINE) "dec %0\n jnz 1b\n vzeroupper\n"
               : "+r"(turns)
               : "r"(kBytes.data())
               : SHOAL_ALL_VECTORS, "cc", "memory");
}
#undef SHOAL_LINE

// Without dot products: multiply to pairs of int16, to int32, add.
#define SHOAL_LINE(n)                      \
  "vpmaddubsw %%ymm13, %%ymm12, %%ymm15\n" \
  "vpmaddwd %%ymm14, %%ymm15, %%ymm15\n"   \
  "vpaddd %%ymm15, %%ymm" #n ", %%ymm" #n "\n"
void int8_avx2(uint64_t turns) {
  asm volatile(
      "vmovdqu (%1), %%ymm12\n vmovdqu 32(%1), %%ymm13\n vmovdqu 64(%1), %%ymm14\n 1:\n" SHOAL_TIMES_12(
          SHOAL_LINE) "dec %0\n jnz 1b\n vzeroupper\n"
      : "+r"(turns)
      : "r"(kBytes.data())
      : SHOAL_ALL_VECTORS, "cc", "memory");
}
#undef SHOAL_LINE

#define SHOAL_LINE(n) "vfmadd231ps %%zmm17, %%zmm16, %%zmm" #n "\n"
void fma_512(uint64_t turns) {
  asm volatile("vmovups (%1), %%zmm16\n vmovaps %%zmm16, %%zmm17\n 1:\n" SHOAL_TIMES_16(
                   SHOAL_LINE) "dec %0\n jnz 1b\n vzeroupper\n"
               : "+r"(turns)
               : "r"(kFloats.data())
               : SHOAL_ALL_VECTORS, "cc", "memory");
}
#undef SHOAL_LINE

#define SHOAL_LINE(n) "vfmadd231ps %%ymm13, %%ymm12, %%ymm" #n "\n"
void fma_256(uint64_t turns) {
  asm volatile("vmovups (%1), %%ymm12\n vmovaps %%ymm12, %%ymm13\n 1:\n" SHOAL_TIMES_12(
                   SHOAL_LINE) "dec %0\n jnz 1b\n vzeroupper\n"
               : "+r"(turns)
               : "r"(kFloats.data())
               : SHOAL_ALL_VECTORS, "cc", "memory");
}
#undef SHOAL_LINE

struct TileConfig {  // of ldtilecfg: eight tiles of 16 rows of 64 bytes
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Two by two tiles of sums, as a kernel would hold them.
void amx_int8(uint64_t turns) {
  const TileConfig config;
  alignas(64) uint8_t tile[16 * 64];
  for (size_t i = 0; i < sizeof(tile); ++i) tile[i] = kBytes[i % kBytes.size()];
  asm volatile(
      "ldtilecfg %1\n"
      "tileloadd (%2,%3,1), %%tmm4\n tileloadd (%2,%3,1), %%tmm5\n"
      "tileloadd (%2,%3,1), %%tmm6\n tileloadd (%2,%3,1), %%tmm7\n"
      "1:\n"
      "tdpbusd %%tmm6, %%tmm4, %%tmm0\n tdpbusd %%tmm7, %%tmm4, %%tmm1\n"
      "tdpbusd %%tmm6, %%tmm5, %%tmm2\n tdpbusd %%tmm7, %%tmm5, %%tmm3\n"
      "dec %0\n jnz 1b\n tilerelease\n"
      : "+r"(turns)
      : "m"(config), "r"(tile), "r"(uint64_t{64})
      : "cc", "memory");
}

bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

std::vector<ComputePeak> find_peaks() {
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, tiles = 0, vex_vnni = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &tiles) == 0) return {};
  __get_cpuid_count(7, 1, &vex_vnni, &b, &c, &a);
  const bool wide = __builtin_cpu_supports("avx512bw"), avx2 = __builtin_cpu_supports("avx2");
  std::vector<ComputePeak> peaks;
  if (wide && __builtin_cpu_supports("avx512vnni")) {
    peaks.push_back({PeakKind::int8_vector, "vpdpbusd zmm", 16 * 128, vnni_512});
  } else if (avx2 && (vex_vnni >> 4 & 1)) {
    peaks.push_back({PeakKind::int8_vector, "vpdpbusd ymm", 12 * 64, vnni_256});
  } else if (avx2) {
    peaks.push_back({PeakKind::int8_vector, "vpmaddubsw ymm", 12 * 64, int8_avx2});
  }
  if ((tiles >> 25 & 1) && may_use_tiles())
    peaks.push_back({PeakKind::int8_matrix, "tdpbusd", 4 * 2 * 16 * 16 * 64, amx_int8});
  if (wide) {
    peaks.push_back({PeakKind::f32_vector, "vfmadd231ps zmm", 16 * 32, fma_512});
  } else if (avx2 && __builtin_cpu_supports("fma")) {
    peaks.push_back({PeakKind::f32_vector, "vfmadd231ps ymm", 12 * 16, fma_256});
  }
  return peaks;
}

#elif defined(__aarch64__)

#define SHOAL_LINE(n) "fmla v" #n ".4s, v16.4s, v17.4s\n"
void fma_neon(uint64_t turns) {
  asm volatile("fmov v16.4s, #1.5\n fmov v17.4s, #-0.25\n 1:\n" SHOAL_TIMES_16(
                   SHOAL_LINE) "subs %0, %0, #1\n b.ne 1b\n"
               : "+r"(turns)
               :
               : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
                 "v14", "v15", "v16", "v17", "cc");
}
#undef SHOAL_LINE

#define SHOAL_LINE(n) "sdot v" #n ".4s, v16.16b, v17.16b\n"
void sdot_neon(uint64_t turns) {
  asm volatile(".arch armv8.2-a+dotprod\n movi v16.16b, #37\n movi v17.16b, #91\n 1:\n" SHOAL_TIMES_16(
                   SHOAL_LINE) "subs %0, %0, #1\n b.ne 1b\n"
               : "+r"(turns)
               :
               : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
                 "v14", "v15", "v16", "v17", "cc");
}
#undef SHOAL_LINE

std::vector<ComputePeak> find_peaks() {
  std::vector<ComputePeak> peaks = {{PeakKind::f32_vector, "fmla", 16 * 8, fma_neon}};
#if defined(__linux__)
  constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
  if ((getauxval(AT_HWCAP) & kDotProducts) == 0) return peaks;
#endif
  peaks.push_back({PeakKind::int8_vector, "sdot", 16 * 32, sdot_neon});
  return peaks;
}

#else
std::vector<ComputePeak> find_peaks() {
  return {};
}
#endif

}  // namespace

std::span<const ComputePeak> compute_peaks() {
  static const std::vector<ComputePeak> peaks = find_peaks();
  return peaks;
}

const ComputePeak* find_peak(PeakKind kind) {
  for (const ComputePeak& peak : compute_peaks())
    if (peak.kind == kind) return &peak;
  return nullptr;
}

double measure_peak(const ComputePeak& peak, int rounds) {
  constexpr double kOperations = 4e9;  // some milliseconds
  const auto turns = static_cast<uint64_t>(kOperations / peak.operations);
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const double start = processor_seconds();
    peak.run(turns);
    best = std::max(best, peak.operations * static_cast<double>(turns) / (processor_seconds() - start) / 1e9);
  }
  return best;
}

}  // namespace shoal::bench
