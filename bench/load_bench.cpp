#include <algorithm>
#include <fmt/format.h>
#include <unistd.h>
#include <vector>

#include "benchmarks.h"
#include "engine/cpu/cpu_backend.h"
#include "figures.h"
#include "matrices.h"
#include "model/decoder_engine.h"

namespace shoal::bench {
namespace {

struct LoadTime {
  double seconds;
  double processor_seconds;
};

LoadTime load_once(const std::filesystem::path& path, unsigned threads) {
  formats::Checkpoint checkpoint = need(formats::Checkpoint::open(path));
  engine::CpuBackend backend = need(engine::CpuBackend::create({.thread_count = threads}));
  std::vector<engine::CpuWeight> weights;
  const double start = seconds(), processor_start = processor_seconds();
  for (const formats::TensorInfo& info : checkpoint.tensors()) {
    weights.push_back(need(backend.load_matrix(checkpoint, {.tensor = &info})));
  }
  return {seconds() - start, processor_seconds() - processor_start};
}

}  // namespace

void load_types(unsigned threads) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / fmt::format("engine_bench.{}.gguf", getpid());
  for (const Kind& kind : all_kinds()) {
    if (kind.ggml_type == UINT32_MAX) continue;
    constexpr uint32_t kRows = 4096, kColumns = 4096;
    const uint64_t bytes = *formats::tensor_bytes(kind.type, kRows, kColumns);
    write_file(path, kind, static_cast<uint32_t>((1 << 30) / bytes), kRows, kColumns);
    LoadTime best = {1e9, 1e9};
    for (int i = 0; i < 3; ++i) {
      const LoadTime time = load_once(path, threads);
      best.seconds = std::min(best.seconds, time.seconds);
      best.processor_seconds = std::min(best.processor_seconds, time.processor_seconds);
    }
    const double gigabytes = static_cast<double>(std::filesystem::file_size(path)) / 1e9;
    print({.name = fmt::format("load {}, {} threads", kind.label, threads),
           .value = gigabytes / best.seconds,
           .unit = "GB/s"});
    print({.name = fmt::format("load {}, by a core's own time", kind.label),
           .value = gigabytes / best.processor_seconds,
           .unit = "GB/s a core"});
  }
  std::filesystem::remove(path);
}

void load_models(std::span<const std::filesystem::path> paths, unsigned threads) {
  for (const std::filesystem::path& path : paths) {
    std::vector<double> times;
    for (int i = 0; i < 4; ++i) {
      const double start = seconds();
      const formats::Checkpoint checkpoint = need(formats::Checkpoint::open(path));
      const model::DecoderSpec spec = need(model::read_decoder_spec(checkpoint));
      model::CpuEngineOptions options;
      options.stage = model::whole_model(spec);
      options.threads = threads;
      options.kv.page_count = 16;
      (void)need(model::load_cpu_engine(checkpoint, spec, options));
      if (i > 0) times.push_back(seconds() - start);  // the first may meet a cold page cache
    }
    const double gigabytes = static_cast<double>(std::filesystem::file_size(path)) / 1e9;
    print({.name = fmt::format("load {} of {:.2f} GB, warm", path.stem().string(), gigabytes),
           .value = smallest(times),
           .unit = "s",
           .goal = 1.5 * gigabytes / 1.3,
           .at_most = true});
  }
}

}  // namespace shoal::bench
