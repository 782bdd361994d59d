#include "serving/probe.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"

namespace shoal::serving {
namespace {

constexpr int kRuns = 5;  // the best counts: what else runs here only takes away
constexpr Duration kTimeOfRun = milliseconds(15);
constexpr size_t kBytesPerThread = 16 * limits::kMiB;  // beyond a core's share of the caches

// Runs `work`, which returns units done, on every thread until the time is over; units per second of all.
double rate_of_run(unsigned threads, const std::function<double()>& work) {
  std::vector<double> units(threads, 0);
  std::vector<std::thread> running;
  const SystemClock clock;
  const TimePoint begin = clock.now();
  for (unsigned thread = 0; thread < threads; ++thread)
    running.emplace_back([&, thread] {
      while (clock.now() - begin < kTimeOfRun) units[thread] += work();
    });
  for (std::thread& thread : running) thread.join();
  const double elapsed = to_seconds(clock.now() - begin);
  double sum = 0;
  for (const double done : units) sum += done;
  return sum / elapsed;
}

double rate(unsigned threads, const std::function<double()>& work) {
  double best = 0;
  for (int run = 0; run < kRuns; ++run) best = std::max(best, rate_of_run(threads, work));
  return best;
}

std::atomic<uint64_t> sink = 0;  // keeps the compiler from dropping the work

double stream_once(const std::vector<uint64_t>& data) {
  std::array<uint64_t, 8> sums = {};
  for (size_t i = 0; i + 8 <= data.size(); i += 8)
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += data[i + lane];
  uint64_t sum = 0;
  for (const uint64_t lane : sums) sum += lane;
  sink.fetch_add(sum, std::memory_order_relaxed);
  return static_cast<double>(data.size() * sizeof(uint64_t));
}

double compute_once() {
  constexpr size_t kLanes = 64;
  constexpr size_t kRounds = 4096;
  std::array<float, kLanes> sums = {};
  std::array<float, kLanes> factors;
  for (size_t lane = 0; lane < kLanes; ++lane) factors[lane] = 1.0f / static_cast<float>(lane + 2);
  for (size_t round = 0; round < kRounds; ++round)
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] = sums[lane] * factors[lane] + 1.0f;
  float sum = 0;
  for (const float lane : sums) sum += lane;
  sink.fetch_add(static_cast<uint64_t>(sum), std::memory_order_relaxed);
  return 2.0 * kLanes * kRounds;
}

}  // namespace

MachineFigures measure_machine(unsigned threads) {
  threads = std::max(1u, threads);
  // One buffer that all read would be served from a shared cache; each thread walks its own part.
  std::vector<std::vector<uint64_t>> buffers(threads,
                                             std::vector<uint64_t>(kBytesPerThread / sizeof(uint64_t), 1));
  std::atomic<unsigned> next = 0;
  MachineFigures figures;
  figures.decode_bytes_per_second = rate(
      threads, [&] { return stream_once(buffers[next.fetch_add(1, std::memory_order_relaxed) % threads]); });
  figures.prefill_flops_per_second = rate(threads, compute_once);
  return figures;
}

}  // namespace shoal::serving
