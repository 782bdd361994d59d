#include "memory_peak.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/cpu/memory_read.h"

namespace shoal::bench {

using engine::cpu::kReadTaskBytes;
using engine::cpu::read_ways;
MemoryPeak::MemoryPeak(unsigned threads, std::span<const unsigned> cores, size_t bytes)
    : buffer_(need(HugeBuffer::allocate(bytes, "bandwidth"))), pool_(std::max(1u, threads), cores) {
  std::memset(buffer_.data(), 1, bytes);
  // Short passes, of which some are not interrupted.
  constexpr uint32_t kTrialTasks = 96;
  double best = 1e9;
  for (int round = 0; round < 12; ++round) {
    for (size_t way = 0; way < read_ways().size(); ++way) {
      const double time = time_of([&] { pass(way, kTrialTasks); }).seconds;
      if (time < best) best = time, way_ = way;
    }
  }
}

void MemoryPeak::pass(size_t way, uint32_t tasks) {
  const auto read = read_ways()[way].read;
  const auto all = static_cast<uint32_t>(buffer_.size() / kReadTaskBytes);
  const uint32_t first = std::exchange(next_task_, (next_task_ + tasks) % all);
  pool_.run(tasks,
            [&](uint32_t task, unsigned) { read(buffer_.data() + (first + task) % all * kReadTaskBytes); });
}

Times MemoryPeak::measure(double bytes) {
  const auto tasks = std::max(1u, static_cast<uint32_t>(bytes / kReadTaskBytes));
  Times times = time_of([&] { pass(way_, tasks); });
  const double whole = bytes / (static_cast<double>(tasks) * kReadTaskBytes);
  times.seconds *= whole;
  times.processor_seconds *= whole;
  return times;
}

const char* MemoryPeak::way() const {
  return read_ways()[way_].name;
}

}  // namespace shoal::bench
