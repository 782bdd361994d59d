// engine_bench WHAT [--threads N] [--short] [MODEL.gguf…]: what the CPU engine reaches on this machine, one
// line of JSON a figure. bench/run knows what to measure and judges it; benchmarks.h says what each does.
#include <cstdlib>
#include <fmt/format.h>
#include <string_view>
#include <vector>

#include "base/cores.h"
#include "base/system.h"
#include "benchmarks.h"
#include "figures.h"

int main(int count, char** words) {
  using namespace shoal;
  const std::string_view what = count > 1 ? words[1] : "";
  bench::ModelTask task{.path = {}, .threads = usable_core_count()};
  std::vector<std::filesystem::path> models;
  for (int i = 2; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--short") {
      task.short_run = true;
    } else if (word == "--threads" && i + 1 < count) {
      task.threads = std::max(1u, static_cast<unsigned>(std::atoi(words[++i])));
    } else {
      models.emplace_back(word);
    }
  }
  const auto cores = usable_cores();
  if (task.threads == cores.size()) task.cores = cores;
  const auto each = [&](void (*run)(const bench::ModelTask&)) {
    for (const auto& path : models) {
      task.path = path;
      run(task);
    }
    return 0;
  };
  if (what == "load") return bench::load_models(models, task.threads), bench::load_types(task.threads), 0;
  if (what == "products") return bench::products(), 0;
  // From here on no two threads share a core, as in a worker; what loads above makes threads that inherit it.
  if (!task.cores.empty()) stay_on_core(cores.front());
  if (what == "engine") return bench::engine_shares(task.threads, task.cores), 0;
  if (what == "decode") return each(bench::decode);
  if (what == "context") return each(bench::long_context);
  if (what == "prefill") return each(bench::prefill);
  if (what == "batch") return each(bench::batch);
  if (what == "profile") return each(bench::profile);
  bench::give_up("takes load, products, engine, decode, context, prefill, batch or profile");
}
