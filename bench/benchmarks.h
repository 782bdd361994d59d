// The benchmarks that engine_bench can run; each prints its figures, one line of JSON each.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

namespace shoal::bench {

// GB/s of file bytes from a mapped file in the page cache to packed weights, for each type that GGUF has.
void load_types(unsigned threads);
// Seconds to load each model of `paths` whole.
void load_models(std::span<const std::filesystem::path> paths, unsigned threads);

// Weights a second of one row times a matrix that no cache holds, and of 256 rows, for each type; one core.
void products();

// The same as shares of what this machine can: GEMM of a core's arithmetic, GEMV of the memory's rate.
void engine_shares(unsigned threads, std::span<const unsigned> cores);

// How models run whole, with `threads` threads: tok/s beside their limit.
struct ModelTask {
  std::filesystem::path path;
  unsigned threads = 0;
  std::vector<unsigned> cores = {};  // one a thread, or empty; as a worker has them
  bool short_run = false;            // a tenth of the steps, for tests of the benchmark itself
};
void decode(const ModelTask& task);
void prefill(const ModelTask& task);
void batch(const ModelTask& task);
void long_context(const ModelTask& task);

// Tables of time per op and layer, for decoding and for a prompt of 512 tokens.
void profile(const ModelTask& task);

}  // namespace shoal::bench
