#include "serving/probe.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <memory>
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

// Everything is measured in turns that come round again until the time is over, so that a neighbour who is
// busy for a while disturbs some turns of each and all turns of none.
constexpr Duration kWholeTime = milliseconds(1500);
constexpr Duration kPrefillTurn = milliseconds(12), kDecodeTurn = milliseconds(4);  // of a class
constexpr uint64_t kMemoryBytes = 256 * limits::kMiB;  // more than most caches hold
constexpr uint32_t kPassTasks = 32, kLeastTasks = 96;
constexpr Duration kTouchTime = milliseconds(200);
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

// All threads read what no cache holds.
class MemoryRate {
 public:
  static Result<MemoryRate> create(engine::cpu::ThreadPool& pool) {
    const uint64_t bytes = std::min(kMemoryBytes, available_memory_bytes() / 8);
    const auto most =
        std::max(kPassTasks, static_cast<uint32_t>(bytes / kReadTaskBytes / kPassTasks * kPassTasks));
    SHOAL_TRY(HugeBuffer buffer,
              HugeBuffer::allocate(size_t{most} * kReadTaskBytes, "the memory's measurement"));
    // Written once: pages that were never written are all the same page of zeros. A virtual machine may have
    // to ask its host for every page, which takes seconds; then less memory must do.
    const SystemClock clock;
    const TimePoint end = clock.now() + kTouchTime;
    uint32_t tasks = 0;
    while (tasks < most && (tasks < kLeastTasks || clock.now() < end)) {
      pool.run(kPassTasks, [&](uint32_t task, unsigned) {
        std::memset(buffer.data() + size_t{tasks + task} * kReadTaskBytes, 1, kReadTaskBytes);
      });
      tasks += kPassTasks;
    }
    return MemoryRate(std::move(buffer), tasks);
  }

  // One pass in every way that the machine may like.
  void turn(engine::cpu::ThreadPool& pool) {
    for (const engine::cpu::ReadWay& way : engine::cpu::read_ways()) {
      const double seconds = seconds_of([&] {
        pool.run(kPassTasks, [&](uint32_t task, unsigned) {
          way.read(buffer_.data() + (first_ + task) % tasks_ * kReadTaskBytes);
        });
      });
      best_ = std::max(best_, double{kPassTasks} * kReadTaskBytes / seconds);
      first_ = (first_ + kPassTasks) % tasks_;
    }
  }
  double bytes_per_second() const { return best_; }

 private:
  MemoryRate(HugeBuffer buffer, uint32_t tasks) : buffer_(std::move(buffer)), tasks_(tasks) {}

  HugeBuffer buffer_;
  uint32_t tasks_;
  uint32_t first_ = 0;  // task of the next pass
  double best_ = 0;
};

// The kernels multiply a matrix of one class of weights.
class ClassRate {
 public:
  static Result<std::unique_ptr<ClassRate>> create(const WeightClass& weights,
                                                   const engine::cpu::Kernels& kernels,
                                                   engine::cpu::ThreadPool& pool) {
    SHOAL_TRY(engine::cpu::PackedMatrix matrix,
              engine::cpu::sample_matrix(weights.sample, kMatrixRows, kMatrixColumns, pool));
    auto rate = std::unique_ptr<ClassRate>(new ClassRate(weights.name, std::move(matrix), kernels, pool));
    const double few_seconds = seconds_of([&] { rate->multiply(kFewRows); });
    if (few_seconds * kManyRows / kFewRows < 4 * to_seconds(kPrefillTurn)) rate->rows_ = kManyRows;
    return rate;
  }

  void turn() {
    const double operations = 2.0 * kMatrixRows * kMatrixColumns * rows_;
    const auto bytes = static_cast<double>(matrix_.bytes());
    prefill_ = std::max(prefill_, best_rate(operations, kPrefillTurn, [&] { multiply(rows_); }));
    decode_ = std::max(decode_, best_rate(bytes, kDecodeTurn, [&] { multiply(1); }));
  }

  // This matrix comes from the caches, a model's from memory: whichever is slower bounds decoding.
  cluster::WeightRate rate(double memory_bytes_per_second) const {
    return {std::string(name_), prefill_, std::min(decode_, memory_bytes_per_second)};
  }

 private:
  ClassRate(std::string_view name, engine::cpu::PackedMatrix matrix, const engine::cpu::Kernels& kernels,
            engine::cpu::ThreadPool& pool)
      : name_(name),
        matrix_(std::move(matrix)),
        product_(kernels, pool, arena_),
        input_(size_t{kManyRows} * kMatrixColumns),
        output_(size_t{kManyRows} * kMatrixRows) {
    for (size_t i = 0; i < input_.size(); ++i) input_[i] = static_cast<float>(i % 17) - 8;
  }
  void multiply(uint32_t rows) {
    const engine::cpu::ProductOutput target = {&matrix_, output_.data()};
    product_.run(input_.data(), rows, kMatrixColumns, {&target, 1});
  }

  std::string_view name_;
  engine::cpu::PackedMatrix matrix_;
  engine::cpu::Arena arena_;
  engine::cpu::MatrixProduct product_;
  std::vector<float> input_, output_;
  uint32_t rows_ = kFewRows;
  double prefill_ = 0, decode_ = 0;
};

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
  SHOAL_TRY(MemoryRate memory, MemoryRate::create(pool));
  std::vector<std::unique_ptr<ClassRate>> classes;
  do {
    memory.turn(pool);
    for (size_t i = 0; i < kClasses.size() && (i == 0 || clock.now() < end); ++i) {
      if (i == classes.size()) {
        SHOAL_TRY(auto one, ClassRate::create(kClasses[i], *kernels, pool));
        classes.push_back(std::move(one));
      }
      classes[i]->turn();
    }
  } while (clock.now() < end);
  MachineFigures figures;
  figures.decode_bytes_per_second = memory.bytes_per_second();
  for (const auto& one : classes) figures.weight_rates.push_back(one->rate(memory.bytes_per_second()));
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
