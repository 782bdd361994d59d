#include "memory_peak.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace shoal::bench {
namespace {

constexpr size_t kTaskBytes = size_t{1} << 20;

// Loads 64 bytes and leaves them: nothing waits for them, and no compiler drops the load.
#if defined(__x86_64__)
struct Load512 {
  static void line(const std::byte* at) {
    asm volatile("vmovdqu64 %0, %%zmm0" : : "m"(*reinterpret_cast<const std::byte(*)[64]>(at)) : "xmm0");
  }
};
struct Load128 {
  static void line(const std::byte* at) {
    asm volatile("movdqu %0, %%xmm0\n movdqu 16+%0, %%xmm0\n movdqu 32+%0, %%xmm0\n movdqu 48+%0, %%xmm0"
                 :
                 : "o"(*reinterpret_cast<const std::byte(*)[64]>(at))
                 : "xmm0");
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
  constexpr size_t kPart = kTaskBytes / streams;
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

struct Way {
  const char* name;
  void (*read)(const std::byte* task);
};

template <class Load>
constexpr Way kWays[] = {
    {"1 stream", read_task<Load, 1, 0>},
    {"1 stream, prefetched 1 KiB ahead", read_task<Load, 1, 1024>},
    {"1 stream, prefetched 4 KiB ahead", read_task<Load, 1, 4096>},
    {"2 streams", read_task<Load, 2, 0>},
    {"2 streams, prefetched 1 KiB ahead", read_task<Load, 2, 1024>},
    {"2 streams, prefetched 4 KiB ahead", read_task<Load, 2, 4096>},
    {"4 streams", read_task<Load, 4, 0>},
    {"4 streams, prefetched 1 KiB ahead", read_task<Load, 4, 1024>},
};

std::span<const Way> ways() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx512f")) return kWays<Load128>;
#endif
  return kWays<Load512>;
}

}  // namespace

MemoryPeak::MemoryPeak(unsigned threads, std::span<const unsigned> cores, size_t bytes)
    : buffer_(need(HugeBuffer::allocate(bytes, "bandwidth"))), pool_(std::max(1u, threads), cores) {
  std::memset(buffer_.data(), 1, bytes);
  // Short passes, of which some are not interrupted.
  constexpr uint32_t kTrialTasks = 96;
  double best = 1e9;
  for (int round = 0; round < 12; ++round) {
    for (size_t way = 0; way < ways().size(); ++way) {
      const double time = time_of([&] { pass(way, kTrialTasks); }).seconds;
      if (time < best) best = time, way_ = way;
    }
  }
}

void MemoryPeak::pass(size_t way, uint32_t tasks) {
  const auto read = ways()[way].read;
  const auto all = static_cast<uint32_t>(buffer_.size() / kTaskBytes);
  const uint32_t first = std::exchange(next_task_, (next_task_ + tasks) % all);
  pool_.run(tasks,
            [&](uint32_t task, unsigned) { read(buffer_.data() + (first + task) % all * kTaskBytes); });
}

Times MemoryPeak::measure(double bytes) {
  const auto tasks = std::max(1u, static_cast<uint32_t>(bytes / kTaskBytes));
  Times times = time_of([&] { pass(way_, tasks); });
  const double whole = bytes / (static_cast<double>(tasks) * kTaskBytes);
  times.seconds *= whole;
  times.processor_seconds *= whole;
  return times;
}

const char* MemoryPeak::way() const {
  return ways()[way_].name;
}

}  // namespace shoal::bench
