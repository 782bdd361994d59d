#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "benchmarks.h"
#include "compute_peak.h"
#include "figures.h"
#include "matrices.h"
#include "memory_peak.h"

namespace shoal::bench {
namespace {

using formats::TensorType;

// Weights met a second of a core's own time, in 1e9.
double multiply(const engine::cpu::PackedMatrix& matrix, uint32_t row_count, engine::cpu::ThreadPool& pool) {
  Multiplication multiplication(matrix, row_count, pool);
  double best = 1e9;
  for (int i = 0; i < 7; ++i) {
    best = std::min(best, time_of([&] { multiplication.run(); }).processor_seconds);
  }
  return multiplication.operations() / 2 / best / 1e9;
}

bool is_float(TensorType type) {
  return type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16;
}

// Share of the vector peak that the type's GEMM has to reach; with a matrix unit more than all of it.
double gemm_goal(TensorType type) {
  if (find_peak(PeakKind::int8_matrix) == nullptr) return 0.75;
  const bool k_quant = type == TensorType::q4_k || type == TensorType::q6_k;
  return k_quant ? 2.2 : 1.6;
}

// 512 rows times 4096 outputs, about what the matrices of a model with 1 G weights have, on one core's own
// time, with the peak measured between the goes. A go is as short as a piece of the peak's, so that some of
// both are not interrupted.
void gemm_share(const Kind& kind, engine::cpu::ThreadPool& pool) {
  constexpr uint32_t kRows = 4096, kColumns = 2048, kActivationRows = 512;
  const ComputePeak* peak = find_peak(is_float(kind.type) ? PeakKind::f32_vector : PeakKind::int8_vector);
  const engine::cpu::PackedMatrix matrix = random_matrix(kind, kRows, kColumns, pool);
  Multiplication multiplication(matrix, kActivationRows, pool);
  double best = 0, limit = 0;
  for (int round = 0; round < 32; ++round) {
    if (peak) limit = std::max(limit, measure_peak(*peak, 1));
    const Times times = time_of([&] { multiplication.run(); });
    best = std::max(best, multiplication.operations() / times.processor_seconds / 1e9);
  }
  Figure figure{.name = fmt::format("GEMM {}, 512 rows", kind.label), .value = best, .unit = "Gop/s a core"};
  if (peak) figure.limit = limit;
  if (peak && !is_float(kind.type)) figure.goal = gemm_goal(kind.type) * limit;
  print(figure);
}

// One row times a matrix that no cache holds, with the memory's rate measured between the goes.
void gemv_share(const Kind& kind, engine::cpu::ThreadPool& pool, MemoryPeak& memory) {
  const engine::cpu::PackedMatrix matrix = random_matrix(kind, 32768, 16384, pool);
  Multiplication multiplication(matrix, 1, pool);
  std::vector<Times> times, limits;
  for (int round = 0; round < 16; ++round) {
    limits.push_back(memory.measure(multiplication.bytes()));
    times.push_back(time_of([&] { multiplication.run(); }));
  }
  const unsigned threads = pool.thread_count();
  const double gigabytes = multiplication.bytes() / 1e9;
  const std::string name =
      fmt::format("GEMV {}, 1 row, {} thread{}", kind.label, threads, threads == 1 ? "" : "s");
  print({.name = name,
         .value = gigabytes / median(times).seconds,
         .unit = "GB/s",
         .limit = gigabytes / median(limits).seconds});
  print({.name = name + ", by processor time",
         .value = gigabytes / median(times).processor_seconds,
         .unit = "GB/s a core",
         .limit = gigabytes / median(limits).processor_seconds});
}

}  // namespace

void products() {
  engine::cpu::ThreadPool pool(1);
  for (const Kind& kind : all_kinds()) {
    const engine::cpu::PackedMatrix large = random_matrix(kind, 8192, 16384, pool);
    const double bits = static_cast<double>(large.bytes()) * 8 / (8192.0 * 16384);
    const double alone = multiply(large, 1, pool);
    const engine::cpu::PackedMatrix small = random_matrix(kind, 1024, 4096, pool);
    const double together = multiply(small, 256, pool);
    const auto put = [&](const char* what, double value, std::string_view unit) {
      print({.name = fmt::format("{}: {}", kind.label, what), .value = value, .unit = unit});
    };
    put("packed", bits, "bits a weight");
    put("one row", alone * bits / 8, "GB/s a core");
    put("one row", alone, "Gweights/s a core");
    put("256 rows", 2 * together, "Gop/s a core");
  }
}

void engine_shares(unsigned threads, std::span<const unsigned> cores) {
  for (const ComputePeak& peak : compute_peaks()) {
    print(
        {.name = fmt::format("peak {}", peak.name), .value = measure_peak(peak, 10), .unit = "Gop/s a core"});
  }
  constexpr TensorType kShown[] = {TensorType::q8_0, TensorType::q4_0, TensorType::q4_k,
                                   TensorType::q6_k, TensorType::q5_k, TensorType::bf16};
  {
    engine::cpu::ThreadPool one(1);
    for (TensorType type : kShown) gemm_share(kind_of(type), one);
  }
  std::vector<unsigned> counts = {1};
  if (threads > 1) counts.push_back(threads);
  for (unsigned count : counts) {
    MemoryPeak memory(count, cores);
    print({.name = fmt::format("read {} thread{}, {}", count, count == 1 ? "" : "s", memory.way()),
           .value = 0.5 / memory.measure(5e8).seconds,
           .unit = "GB/s"});
    engine::cpu::ThreadPool pool(count, cores);
    for (TensorType type : kShown) gemv_share(kind_of(type), pool, memory);
  }
}

}  // namespace shoal::bench
