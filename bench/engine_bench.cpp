// engine_bench load [THREADS] | products: what the CPU engine reaches on this machine, one line of JSON a
// figure.
//   load: GB/s of file bytes from a mapped file in the page cache to packed weights, for each type that GGUF
//   has products: weights a second of one row times a matrix that no cache holds, and of 256 rows, for each
//   type
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <time.h>
#include <unistd.h>

#include "base/system.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/matrix_product.h"

namespace {

using namespace shoal;
using formats::TensorType;

struct Kind {
  TensorType type;
  const char* label;
  uint32_t ggml_type = UINT32_MAX;  // in GGUF
  TensorType scale_type = TensorType::f32;
  uint32_t group_columns = 0;
};

constexpr Kind kKinds[] = {
    {TensorType::f32, "F32", 0},
    {TensorType::f16, "F16", 1},
    {TensorType::bf16, "BF16", 30},
    {TensorType::q8_0, "Q8_0", 8},
    {TensorType::q4_0, "Q4_0", 2},
    {TensorType::q4_1, "Q4_1", 3},
    {TensorType::q5_0, "Q5_0", 6},
    {TensorType::q5_1, "Q5_1", 7},
    {TensorType::iq4_nl, "IQ4_NL", 20},
    {TensorType::q2_k, "Q2_K", 10},
    {TensorType::q3_k, "Q3_K", 11},
    {TensorType::q4_k, "Q4_K", 12},
    {TensorType::q5_k, "Q5_K", 13},
    {TensorType::q6_k, "Q6_K", 14},
    {TensorType::iq4_xs, "IQ4_XS", 23},
    {TensorType::mxfp4, "MXFP4", 39},
    {TensorType::f8_e4m3, "FP8", UINT32_MAX, TensorType::f32, 128},
    {TensorType::mxfp4_pairs, "MXFP4 pairs", UINT32_MAX, TensorType::e8m0, 32},
    {TensorType::affine4, "MLX 4-bit", UINT32_MAX, TensorType::bf16, 64},
    {TensorType::affine8, "MLX 8-bit", UINT32_MAX, TensorType::bf16, 64},
};

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes that are finite as a float of any type and no NaN of FP8 or E8M0.
void fill(std::span<std::byte> bytes) {
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const uint64_t value = state & 0x6f6f6f6f6f6f6f6fu;
    std::memcpy(bytes.data() + i, &value, 8);
  }
}

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void put_text(std::string& to, std::string_view text) {
  put<uint64_t>(to, text.size());
  to += text;
}

// A GGUF of `count` matrices of rows x columns.
void write_file(const std::filesystem::path& path, const Kind& kind, uint32_t count, uint32_t rows,
                uint32_t columns) {
  const uint64_t bytes = *formats::tensor_bytes(kind.type, rows, columns);
  std::string header = "GGUF";
  put<uint32_t>(header, 3);
  put<uint64_t>(header, count);
  put<uint64_t>(header, 1);
  put_text(header, "general.architecture");
  put<uint32_t>(header, 8);
  put_text(header, "llama");
  for (uint32_t i = 0; i < count; ++i) {
    put_text(header, fmt::format("matrix.{}", i));
    put<uint32_t>(header, 2);
    put<uint64_t>(header, columns);
    put<uint64_t>(header, rows);
    put<uint32_t>(header, kind.ggml_type);
    put<uint64_t>(header, (bytes + 31) / 32 * 32 * i);
  }
  header.resize((header.size() + 31) / 32 * 32);
  std::vector<std::byte> weights((bytes + 31) / 32 * 32);
  fill(weights);
  std::ofstream file(path, std::ios::binary);
  file << header;
  for (uint32_t i = 0; i < count; ++i) {
    file.write(reinterpret_cast<const char*>(weights.data()), static_cast<std::streamsize>(weights.size()));
  }
}

template <class T>
T need(Result<T> result) {
  if (result) return *std::move(result);
  fmt::print(stderr, "engine_bench: {}\n", result.error().message);
  std::exit(1);
}

// Of this process, all threads together: what another load on the machine changes least.
double processor_seconds() {
  timespec time = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

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
    weights.push_back(need(backend.load_matrix(checkpoint, {.tensor = &info}, engine::Cut::none)));
  }
  return {seconds() - start, processor_seconds() - processor_start};
}

void load(unsigned threads) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / fmt::format("engine_bench.{}.gguf", getpid());
  for (const Kind& kind : kKinds) {
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
    fmt::print("{{\"name\": \"load {}, {} threads\", \"value\": {:.2f}, \"unit\": \"GB/s\"}}\n", kind.label,
               threads, gigabytes / best.seconds);
    fmt::print(
        "{{\"name\": \"load {}, by a core's own time\", \"value\": {:.2f}, \"unit\": \"GB/s a core\"}}\n",
        kind.label, gigabytes / best.processor_seconds);
    std::fflush(stdout);
  }
  std::filesystem::remove(path);
}

engine::cpu::PackedMatrix random_matrix(const Kind& kind, uint32_t rows, uint32_t columns,
                                        engine::cpu::ThreadPool& pool) {
  std::vector<std::byte> weights(*formats::tensor_bytes(kind.type, rows, columns)), scales, biases;
  fill(weights);
  if (kind.group_columns != 0) {
    scales.resize(size_t{rows} * columns / kind.group_columns *
                  formats::type_info(kind.scale_type).block_bytes);
    biases.resize(scales.size());
    fill(scales);
  }
  engine::cpu::FileMatrix file = {.type = kind.type,
                                  .file_rows = rows,
                                  .file_columns = columns,
                                  .weights = weights,
                                  .scales = scales,
                                  .biases = biases,
                                  .scale_type = kind.scale_type,
                                  .group_columns = kind.group_columns};
  return need(engine::cpu::PackedMatrix::pack(file, {.rows = rows, .columns = columns}, pool));
}

// Weights met a second of a core's own time, in 1e9.
double multiply(const engine::cpu::PackedMatrix& matrix, uint32_t row_count, engine::cpu::ThreadPool& pool) {
  engine::cpu::Arena arena;
  engine::cpu::MatrixProduct product(**engine::cpu::select_kernels(std::nullopt), pool, arena);
  const uint32_t rows = matrix.rows(), columns = matrix.columns();
  std::vector<float> input(size_t{row_count} * columns), output(size_t{row_count} * rows);
  for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<float>(i % 17) - 8;
  const engine::cpu::ProductOutput target = {&matrix, output.data()};
  double best = 1e9;
  for (int i = 0; i < 7; ++i) {
    const double start = processor_seconds();
    product.run(input.data(), row_count, columns, {&target, 1});
    best = std::min(best, processor_seconds() - start);
  }
  return static_cast<double>(rows) * columns * row_count / best / 1e9;
}

void products() {
  engine::cpu::ThreadPool pool(1);
  for (const Kind& kind : kKinds) {
    const engine::cpu::PackedMatrix large = random_matrix(kind, 8192, 16384, pool);
    const double bits = static_cast<double>(large.bytes()) * 8 / (8192.0 * 16384);
    const double alone = multiply(large, 1, pool);
    const engine::cpu::PackedMatrix small = random_matrix(kind, 1024, 4096, pool);
    const double together = multiply(small, 256, pool);
    auto print = [&](const char* what, double value, const char* unit) {
      fmt::print("{{\"name\": \"{}: {}\", \"value\": {:.3f}, \"unit\": \"{}\"}}\n", kind.label, what, value,
                 unit);
    };
    print("packed", bits, "bits a weight");
    print("one row", alone * bits / 8, "GB/s a core");
    print("one row", alone, "Gweights/s a core");
    print("256 rows", 2 * together, "Gop/s a core");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int count, char** words) {
  const std::string_view what = count > 1 ? words[1] : "";
  const unsigned threads = count > 2 ? static_cast<unsigned>(std::atoi(words[2])) : usable_core_count();
  if (what == "load") {
    load(std::max(1u, threads));
  } else if (what == "products") {
    products();
  } else {
    fmt::print(stderr, "engine_bench: takes load [THREADS] or products\n");
    return 1;
  }
}
