#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <vector>

#include "benchmarks.h"
#include "figures.h"
#include "matrices.h"
#include "memory_peak.h"
#include "model_run.h"

namespace shoal::bench {
namespace {

std::string label(const ModelTask& task) {
  return task.path.stem().string();
}

int rounds(const ModelTask& task, int normally) {
  return task.short_run ? 2 : normally;
}

size_t memory_bytes(const ModelTask& task) {
  return task.short_run ? 64 << 20 : MemoryPeak::kUsualBytes;
}

// What the products alone of a prompt take, on a core's own time: for each type of matrix its operations and
// a product of that type to measure between the prompts. A mixture's experts count for the rows they serve.
class ProductsOfModel {
 public:
  ProductsOfModel(const ModelRun& model, uint32_t rows, engine::cpu::ThreadPool& pool) {
    std::map<formats::TensorType, double> operations;
    for (const formats::TensorInfo& tensor : model.checkpoint().tensors()) {
      if (tensor.shape.size() < 2 || !tensor.name.starts_with("blk.")) continue;
      double values = 1;
      for (uint64_t length : tensor.shape) values *= static_cast<double>(length);
      operations[tensor.type] += 2 * values * rows * served_share(model, tensor);
    }
    for (const auto& [type, count] : operations) {
      auto& product = products_.emplace_back(std::make_unique<Product>());
      product->operations = count;
      product->matrix = random_matrix(kind_of(type), 4096, 2048, pool);
      product->multiplication = std::make_unique<Multiplication>(product->matrix, rows, pool);
    }
  }

  void measure() {
    for (auto& product : products_) {
      const Times times = time_of([&] { product->multiplication->run(); });
      product->best = std::min(product->best, times.processor_seconds);
    }
  }

  double processor_seconds_of_prompt() const {
    double sum = 0;
    for (const auto& product : products_)
      sum += product->operations / product->multiplication->operations() * product->best;
    return sum;
  }

 private:
  struct Product {
    double operations = 0;
    double best = 1e9;
    engine::cpu::PackedMatrix matrix;
    std::unique_ptr<Multiplication> multiplication;
  };

  static double served_share(const ModelRun& model, const formats::TensorInfo& tensor) {
    if (tensor.name.find("_exps.") == std::string::npos) return 1;
    for (const model::LayerSpec& layer : model.spec().layers) {
      if (const auto* mixture = std::get_if<model::MixtureSpec>(&layer.feed_forward))
        return static_cast<double>(mixture->router_op.used) / mixture->router_op.expert_count;
    }
    return 1;
  }

  std::vector<std::unique_ptr<Product>> products_;
};

// Decoding beside the memory's rate over as many bytes as a step reads.
struct Decoded {
  std::vector<Times> steps, limits;
};

Decoded decode_steps(ModelRun& model, MemoryPeak& memory, double bytes, int groups) {
  Decoded decoded;
  for (int group = 0; group < groups; ++group) {
    decoded.limits.push_back(memory.measure(bytes));
    for (int step = 0; step < 2; ++step) decoded.steps.push_back(model.decode());
  }
  return decoded;
}

// Medians of the clock on the wall are judged; the calmest fifth and processor time say more while other work
// runs on the machine.
void print_decoded(const std::string& name, const ModelTask& task, const Decoded& decoded,
                   double goal_share) {
  const Times step = median(decoded.steps), limit = median(decoded.limits);
  print({.name = name,
         .value = 1 / step.seconds,
         .unit = "tok/s",
         .limit = 1 / limit.seconds,
         .goal = goal_share / limit.seconds});
  print({.name = name + ", calmest fifth",
         .value = 1 / calm(decoded.steps).seconds,
         .unit = "tok/s",
         .limit = 1 / calm(decoded.limits).seconds});
  print({.name = name + ", by processor time",
         .value = task.threads / step.processor_seconds,
         .unit = "tok/s",
         .limit = task.threads / limit.processor_seconds});
}

}  // namespace

void decode(const ModelTask& task) {
  ModelRun model(task, 1024);
  MemoryPeak memory(task.threads, task.cores, memory_bytes(task));
  const double bytes = model.active_bytes();
  model.start(1, 32);
  decode_steps(model, memory, bytes, 1);
  const Decoded result = decode_steps(model, memory, bytes, rounds(task, 64));
  print_decoded(fmt::format("decode {}, {:.0f} MB", label(task), bytes / 1e6), task, result, 0.9);
}

void long_context(const ModelTask& task) {
  const std::vector<uint32_t> contexts =
      task.short_run ? std::vector<uint32_t>{1024} : std::vector<uint32_t>{16384, 32768};
  ModelRun model(task, contexts.back() + 1024);
  MemoryPeak memory(task.threads, task.cores, memory_bytes(task));
  for (uint32_t context : contexts) {
    model.start_long(context);
    const double bytes = model.active_bytes() + model.kv_bytes_per_token() * context;
    const Decoded result = decode_steps(model, memory, bytes, rounds(task, 24));
    print_decoded(fmt::format("decode {} at {}, {:.0f} MB", label(task), context, bytes / 1e6), task, result,
                  0.8);
  }
}

void prefill(const ModelTask& task) {
  const uint32_t tokens = task.short_run ? 64 : 512;
  ModelRun model(task, 2 * tokens);
  engine::cpu::ThreadPool pool(1);
  ProductsOfModel products(model, tokens, pool);
  model.read_prompt(tokens);
  double wall = 1e9, processor = 1e9;
  for (int round = 0; round < rounds(task, 6); ++round) {
    products.measure();
    const Times times = model.read_prompt(tokens);
    wall = std::min(wall, times.seconds);
    processor = std::min(processor, times.processor_seconds);
  }
  const double limit = tokens / products.processor_seconds_of_prompt();
  print({.name = fmt::format("prefill {} of {}, by a core's own time", tokens, label(task)),
         .value = tokens / processor,
         .unit = "tok/s a core",
         .limit = limit,
         .goal = 0.65 * limit});
  print({.name = fmt::format("prefill {} of {}, {} threads", tokens, label(task), task.threads),
         .value = tokens / wall,
         .unit = "tok/s",
         .limit = limit * task.threads});
}

void batch(const ModelTask& task) {
  constexpr std::array<uint32_t, 4> kSizes = {1, 4, 8, 16};
  ModelRun model(task, 16 * 512);
  std::array<std::vector<Times>, kSizes.size()> times;
  for (int round = 0; round < rounds(task, 6); ++round) {
    for (size_t i = 0; i < kSizes.size(); ++i) {
      model.start(kSizes[i], 32);
      model.decode();
      for (int step = 0; step < 8; ++step) times[i].push_back(model.decode());
    }
  }
  const Times alone = median(times[0]);
  for (size_t i = 0; i < kSizes.size(); ++i) {
    const double size = kSizes[i];
    const Times step = median(times[i]);
    const std::string name = fmt::format("batch {} of {}", kSizes[i], label(task));
    print({.name = name, .value = size / step.seconds, .unit = "tok/s"});
    if (kSizes[i] == 1) continue;
    print({.name = name + ", beside batch 1",
           .value = size * alone.seconds / step.seconds,
           .unit = "times",
           .limit = size,
           .goal = kSizes[i] == 16 ? std::optional(8.0) : std::nullopt});
    print({.name = name + ", by processor time",
           .value = size * alone.processor_seconds / step.processor_seconds,
           .unit = "times",
           .limit = size});
  }
}

}  // namespace shoal::bench
