#include "serving/probe.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/cores.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/system.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/matrix_product.h"
#include "engine/cpu/memory_read.h"
#include "engine/cpu/sample_matrix.h"

namespace shoal::serving {
namespace {

using engine::cpu::kReadTaskBytes;
using formats::TensorType;

constexpr Duration kMemoryTime = milliseconds(250);
constexpr Duration kPrefillTime = milliseconds(45);    // of a class
constexpr Duration kDecodeTime = milliseconds(15);     // of a class
constexpr Duration kWholeTime = milliseconds(1500);    // then classes that were not reached are left out
constexpr uint64_t kMemoryBytes = 256 * limits::kMiB;  // more than most caches hold
constexpr uint32_t kPassTasks = 64;
constexpr uint32_t kMatrixRows = 2048, kMatrixColumns = 2048;  // the more, the more cores have work
constexpr uint32_t kFewRows = 16, kManyRows = 128;             // of activations

struct WeightClass {
  std::string_view name;
  engine::cpu::SampleType sample;
};
// Those first that models are mostly made of.
constexpr std::array<WeightClass, 8> kClasses = {{
    {"q8", {TensorType::q8_0}},
    {"k", {TensorType::q4_k}},
    {"q4", {TensorType::q4_0}},
    {"bf16", {TensorType::bf16}},
    {"f16", {TensorType::f16}},
    {"mxfp4", {TensorType::mxfp4}},
    {"f32", {TensorType::f32}},
    {"f8", {TensorType::f8_e4m3, TensorType::f32, 128}},
}};

double seconds_of(const std::function<void()>& work) {
  const SystemClock clock;
  const TimePoint begin = clock.now();
  work();
  return std::max(1e-9, to_seconds(clock.now() - begin));
}

// Units per second of the best go, each of which does `units`; at least two goes, the first may be cold.
double best_rate(double units, Duration time, const std::function<void()>& work) {
  const SystemClock clock;
  const TimePoint end = clock.now() + time;
  double best = units / seconds_of(work);
  do best = std::max(best, units / seconds_of(work));
  while (clock.now() < end);
  return best;
}

// All threads read what no cache holds, in every way that the machine may like.
Result<double> memory_rate(engine::cpu::ThreadPool& pool) {
  const uint64_t bytes = std::min(kMemoryBytes, available_memory_bytes() / 8);
  const auto tasks =
      std::max(kPassTasks, static_cast<uint32_t>(bytes / kReadTaskBytes / kPassTasks * kPassTasks));
  SHOAL_TRY(const HugeBuffer buffer,
            HugeBuffer::allocate(tasks * kReadTaskBytes, "the memory's measurement"));
  // Written once: pages that were never written are all the same page of zeros.
  pool.run(tasks, [&](uint32_t task, unsigned) {
    std::memset(buffer.data() + task * kReadTaskBytes, 1, kReadTaskBytes);
  });
  const SystemClock clock;
  const TimePoint end = clock.now() + kMemoryTime;
  uint32_t first = 0;
  double best = 0;
  do {
    for (const engine::cpu::ReadWay& way : engine::cpu::read_ways()) {
      const double seconds = seconds_of([&] {
        pool.run(kPassTasks, [&](uint32_t task, unsigned) {
          way.read(buffer.data() + (first + task) % tasks * kReadTaskBytes);
        });
      });
      best = std::max(best, double{kPassTasks} * kReadTaskBytes / seconds);
      first = (first + kPassTasks) % tasks;
    }
  } while (clock.now() < end);
  return best;
}

Result<cluster::WeightRate> class_rate(const WeightClass& weights, const engine::cpu::Kernels& kernels,
                                       double memory_bytes_per_second, engine::cpu::ThreadPool& pool) {
  SHOAL_TRY(const engine::cpu::PackedMatrix matrix,
            engine::cpu::sample_matrix(weights.sample, kMatrixRows, kMatrixColumns, pool));
  engine::cpu::Arena arena;
  engine::cpu::MatrixProduct product(kernels, pool, arena);
  std::vector<float> input(size_t{kManyRows} * kMatrixColumns), output(size_t{kManyRows} * kMatrixRows);
  for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<float>(i % 17) - 8;
  const engine::cpu::ProductOutput target = {&matrix, output.data()};
  const auto multiply = [&](uint32_t rows) { product.run(input.data(), rows, kMatrixColumns, {&target, 1}); };
  const double few_seconds = seconds_of([&] { multiply(kFewRows); });
  const bool slow = few_seconds * kManyRows / kFewRows > to_seconds(kPrefillTime);
  const uint32_t rows = slow ? kFewRows : kManyRows;
  cluster::WeightRate rate;
  rate.weights = weights.name;
  rate.prefill_flops_per_second =
      best_rate(2.0 * kMatrixRows * kMatrixColumns * rows, kPrefillTime, [&] { multiply(rows); });
  // This matrix comes from the caches, a model's from memory: whichever is slower bounds decoding.
  const double cached = best_rate(static_cast<double>(matrix.bytes()), kDecodeTime, [&] { multiply(1); });
  rate.decode_bytes_per_second = std::min(cached, memory_bytes_per_second);
  return rate;
}

// As the workers have them: with as many threads as cores, each on its own.
std::vector<unsigned> cores_for(unsigned threads) {
  std::vector<unsigned> cores = usable_cores();
  if (cores.size() != threads) cores.clear();
  return cores;
}

}  // namespace

Result<MachineFigures> measure_machine(unsigned threads, std::string_view isa) {
  const SystemClock clock;
  const TimePoint end = clock.now() + kWholeTime;
  std::optional<engine::cpu::Isa> wanted;
  if (!isa.empty()) {
    SHOAL_TRY(wanted, engine::cpu::parse_isa(isa));
  }
  SHOAL_TRY(const engine::cpu::Kernels* kernels, engine::cpu::select_kernels(wanted));
  threads = std::clamp(threads, 1u, limits::kMaxThreads);
  engine::cpu::ThreadPool pool(threads, cores_for(threads));
  MachineFigures figures;
  SHOAL_TRY(figures.decode_bytes_per_second, memory_rate(pool));
  for (const WeightClass& weights : kClasses) {
    if (!figures.weight_rates.empty() && clock.now() >= end) break;
    SHOAL_TRY(cluster::WeightRate rate, class_rate(weights, *kernels, figures.decode_bytes_per_second, pool));
    figures.weight_rates.push_back(std::move(rate));
  }
  figures.prefill_flops_per_second = figures.weight_rates.front().prefill_flops_per_second;
  return figures;
}

std::string_view weight_class(TensorType type) {
  switch (type) {
    case TensorType::q8_0:
    case TensorType::affine8:
      return "q8";
    case TensorType::q4_0:
    case TensorType::q4_1:
    case TensorType::q5_0:
    case TensorType::q5_1:
    case TensorType::iq4_nl:
    case TensorType::affine4:
      return "q4";
    case TensorType::q2_k:
    case TensorType::q3_k:
    case TensorType::q4_k:
    case TensorType::q5_k:
    case TensorType::q6_k:
    case TensorType::iq4_xs:
      return "k";
    case TensorType::mxfp4:
    case TensorType::mxfp4_pairs:
      return "mxfp4";
    case TensorType::f32:
      return "f32";
    case TensorType::f16:
      return "f16";
    case TensorType::bf16:
      return "bf16";
    case TensorType::f8_e4m3:
      return "f8";
    case TensorType::e8m0:
      return "";
  }
  return "";
}

}  // namespace shoal::serving
