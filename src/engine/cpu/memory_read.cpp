#include "engine/cpu/memory_read.h"

#include <cstdint>

namespace shoal::engine::cpu {
namespace {

// Loads 64 bytes and leaves them: nothing waits for them, and no compiler drops the load.
#if defined(__x86_64__)
struct Load512 {
  static void line(const std::byte* at) {
    asm volatile("vmovdqu64 %0, %%zmm0" : : "m"(*reinterpret_cast<const std::byte(*)[64]>(at)) : "xmm0");
  }
};
struct Load128 {
  static void line(const std::byte* at) {
    asm volatile("movdqu (%0), %%xmm0\n movdqu 16(%0), %%xmm0\n movdqu 32(%0), %%xmm0\n movdqu 48(%0), %%xmm0"
                 :
                 : "r"(at)
                 : "xmm0", "memory");
  }
};
#else
struct Load512 {
  static void line(const std::byte* at) {
#if defined(__aarch64__)
    asm volatile("ldp q0, q1, [%0]\n ldp q0, q1, [%0, #32]" : : "r"(at) : "v0", "v1", "memory");
#else
    for (size_t i = 0; i < 64; i += 8) *reinterpret_cast<const volatile uint64_t*>(at + i);
#endif
  }
};
using Load128 = Load512;
#endif

template <class Load, size_t streams, size_t ahead>
void read_task(const std::byte* data) {
  constexpr size_t kPart = kReadTaskBytes / streams;
  for (size_t at = 0; at < kPart; at += 256) {
    for (size_t stream = 0; stream < streams; ++stream) {
      const std::byte* from = data + stream * kPart + at;
      for (size_t line = 0; line < 256; line += 64) {
        if constexpr (ahead != 0) __builtin_prefetch(from + line + ahead);
        Load::line(from + line);
      }
    }
  }
}

template <class Load>
constexpr ReadWay kWays[] = {
    {"1 stream", read_task<Load, 1, 0>},
    {"1 stream, prefetched 1 KiB ahead", read_task<Load, 1, 1024>},
    {"1 stream, prefetched 4 KiB ahead", read_task<Load, 1, 4096>},
    {"2 streams", read_task<Load, 2, 0>},
    {"2 streams, prefetched 1 KiB ahead", read_task<Load, 2, 1024>},
    {"2 streams, prefetched 4 KiB ahead", read_task<Load, 2, 4096>},
    {"4 streams", read_task<Load, 4, 0>},
    {"4 streams, prefetched 1 KiB ahead", read_task<Load, 4, 1024>},
};

}  // namespace

std::span<const ReadWay> read_ways() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx512f")) return kWays<Load128>;
#endif
  return kWays<Load512>;
}

}  // namespace shoal::engine::cpu
