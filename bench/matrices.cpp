#include "matrices.h"

#include <fmt/format.h>
#include <fstream>
#include <string>

#include "engine/cpu/sample_matrix.h"
#include "figures.h"

namespace shoal::bench {
namespace {

using formats::TensorType;

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

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void put_text(std::string& to, std::string_view text) {
  put<uint64_t>(to, text.size());
  to += text;
}

}  // namespace

std::span<const Kind> all_kinds() {
  return kKinds;
}

const Kind& kind_of(TensorType type) {
  for (const Kind& kind : kKinds)
    if (kind.type == type) return kind;
  give_up(fmt::format("no benchmark knows type {}", formats::type_info(type).name));
}

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
  engine::cpu::fill_with_finite(weights);
  std::ofstream file(path, std::ios::binary);
  file << header;
  for (uint32_t i = 0; i < count; ++i) {
    file.write(reinterpret_cast<const char*>(weights.data()), static_cast<std::streamsize>(weights.size()));
  }
}

engine::cpu::PackedMatrix random_matrix(const Kind& kind, uint32_t rows, uint32_t columns,
                                        engine::cpu::ThreadPool& pool) {
  return need(
      engine::cpu::sample_matrix({kind.type, kind.scale_type, kind.group_columns}, rows, columns, pool));
}

Multiplication::Multiplication(const engine::cpu::PackedMatrix& matrix, uint32_t row_count,
                               engine::cpu::ThreadPool& pool)
    : matrix_(matrix),
      row_count_(row_count),
      product_(**engine::cpu::select_kernels(std::nullopt), pool, arena_),
      input_(size_t{row_count} * matrix.columns()),
      output_(size_t{row_count} * matrix.rows()) {
  for (size_t i = 0; i < input_.size(); ++i) input_[i] = static_cast<float>(i % 17) - 8;
}

void Multiplication::run() {
  const engine::cpu::ProductOutput target = {&matrix_, output_.data()};
  product_.run(input_.data(), row_count_, matrix_.columns(), {&target, 1});
}

double Multiplication::operations() const {
  return 2.0 * matrix_.rows() * matrix_.columns() * row_count_;
}

}  // namespace shoal::bench
