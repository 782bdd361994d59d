// What the engine's tests share: random weights in the file's form, random activations with awkward values,
// and products through the public parts.
#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/kernels.h"
#include "engine/cpu/matrix_product.h"
#include "engine/engine.h"
#include "formats/dequantise.h"
#include "formats/half.h"
#include "formats/tensor_rows.h"

namespace shoal::engine::cpu {

// The types whose bits the first checksum of numerics_test pins.
inline constexpr formats::TensorType kFirstTypes[] = {formats::TensorType::f32,  formats::TensorType::f16,
                                                      formats::TensorType::bf16, formats::TensorType::q8_0,
                                                      formats::TensorType::q4_0, formats::TensorType::q4_k,
                                                      formats::TensorType::q6_k};

// A type, and for those with scales beside them what these are.
struct WeightKind {
  formats::TensorType type;
  formats::TensorType scale_type = formats::TensorType::f32;
  uint32_t group_rows = 1;
  uint32_t group_columns = 0;

  uint32_t block_columns() const {
    return std::max({32u, formats::type_info(type).block_values, group_columns});
  }
};

inline constexpr WeightKind kFirstKinds[] = {{formats::TensorType::f32},  {formats::TensorType::f16},
                                             {formats::TensorType::bf16}, {formats::TensorType::q8_0},
                                             {formats::TensorType::q4_0}, {formats::TensorType::q4_k},
                                             {formats::TensorType::q6_k}};

inline constexpr WeightKind kLaterKinds[] = {
    {formats::TensorType::q4_1},
    {formats::TensorType::q5_0},
    {formats::TensorType::q5_1},
    {formats::TensorType::iq4_nl},
    {formats::TensorType::q2_k},
    {formats::TensorType::q3_k},
    {formats::TensorType::q5_k},
    {formats::TensorType::iq4_xs},
    {formats::TensorType::mxfp4},
    {formats::TensorType::mxfp4_pairs, formats::TensorType::e8m0, 1, 32},
    {formats::TensorType::f8_e4m3, formats::TensorType::f32, 128, 128},
    {formats::TensorType::f8_e4m3, formats::TensorType::bf16, 5, 48},
    {formats::TensorType::affine4, formats::TensorType::f16, 1, 64},
    {formats::TensorType::affine4, formats::TensorType::bf16, 1, 32},
    {formats::TensorType::affine4, formats::TensorType::f32, 1, 128},
    {formats::TensorType::affine8, formats::TensorType::f16, 1, 32},
    {formats::TensorType::affine8, formats::TensorType::bf16, 1, 128},
    {formats::TensorType::affine8, formats::TensorType::f32, 1, 64}};

inline std::vector<WeightKind> all_kinds() {
  std::vector<WeightKind> kinds(std::begin(kFirstKinds), std::end(kFirstKinds));
  kinds.insert(kinds.end(), std::begin(kLaterKinds), std::end(kLaterKinds));
  return kinds;
}

inline std::string name_of(const WeightKind& kind) {
  std::string name(formats::to_string(kind.type));
  if (kind.type == formats::TensorType::mxfp4_pairs) name += "_pairs";
  if (kind.group_columns != 0)
    name += "_" + std::string(formats::to_string(kind.scale_type)) + "_" + std::to_string(kind.group_columns);
  std::ranges::replace_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

using Random = std::mt19937_64;

inline float normal(Random& random) {
  // The sum of uniforms: the same on every standard library.
  float sum = 0;
  for (int i = 0; i < 6; ++i) sum += static_cast<float>(random() >> 40) * 0x1p-24f - 0.5f;
  return sum;
}

// Rows of `type` in the file's form with plausible scales.
inline Bytes random_weights(formats::TensorType type, uint32_t rows, uint32_t columns, Random& random) {
  using formats::TensorType;
  Bytes bytes(formats::tensor_bytes(type, rows, columns).value());
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const formats::TensorTypeInfo& info = formats::type_info(type);
  auto put = [&](size_t offset, const auto& value) {
    std::memcpy(bytes.data() + offset, &value, sizeof(value));
  };
  for (size_t block = 0; block < bytes.size() / info.block_bytes; ++block) {
    size_t at = block * info.block_bytes;
    float scale = normal(random) * 0.02f;
    switch (type) {
      case TensorType::f32:
        put(at, normal(random));
        break;
      case TensorType::f16:
        put(at, formats::f32_to_f16(normal(random)));
        break;
      case TensorType::bf16:
        put(at, formats::f32_to_bf16(normal(random)));
        break;
      case TensorType::q8_0:
      case TensorType::q4_0:
      case TensorType::q5_0:
      case TensorType::iq4_nl:
      case TensorType::iq4_xs:
        put(at, formats::f32_to_f16(scale));
        break;
      case TensorType::q2_k:
        put(at + 80, formats::f32_to_f16(scale));
        put(at + 82, formats::f32_to_f16(normal(random) * 0.02f));
        break;
      case TensorType::q3_k:
        put(at + 108, formats::f32_to_f16(scale));
        break;
      case TensorType::mxfp4:
        put(at, static_cast<uint8_t>(random() % 8 + 117));
        break;
      case TensorType::f8_e4m3:
        if ((bytes[at] & std::byte{0x7f}) == std::byte{0x7f}) bytes[at] = std::byte{0x38};
        break;
      case TensorType::q4_1:
      case TensorType::q5_1:
      case TensorType::q5_k:
      case TensorType::q4_k:
        put(at, formats::f32_to_f16(scale));
        put(at + 2, formats::f32_to_f16(normal(random) * 0.02f));
        break;
      case TensorType::q6_k:
        put(at + 208, formats::f32_to_f16(scale));
        break;
      case TensorType::mxfp4_pairs:
      case TensorType::affine4:
      case TensorType::affine8:
        break;
      case TensorType::e8m0:
        put(at, static_cast<uint8_t>(random() % 8 + 117));
        break;
    }
  }
  return bytes;
}

// A matrix in the file's form with what lies beside it.
struct FileBytes {
  formats::TensorInfo info;
  Bytes weights, scales, biases;

  uint32_t rows() const { return static_cast<uint32_t>(info.shape[0]); }
  uint32_t columns() const { return static_cast<uint32_t>(info.shape[1]); }
  FileMatrix matrix() const {
    return {.type = info.type,
            .file_rows = rows(),
            .file_columns = columns(),
            .weights = weights,
            .scales = scales,
            .biases = biases,
            .scale_type = info.scales ? info.scales->type : formats::TensorType::f32,
            .group_rows = info.group_rows,
            .group_columns = info.group_columns,
            .tensor = &info,
            .tensor_bytes = {weights, scales, biases}};
  }
  std::vector<float> values() const {  // exact, [rows, columns]
    std::vector<float> all(size_t{rows()} * columns());
    EXPECT_TRUE(formats::dequantise_rows(info, {weights, scales, biases}, 0, all).has_value());
    return all;
  }
};

inline FileBytes random_matrix(const WeightKind& kind, uint32_t rows, uint32_t columns, Random& random) {
  FileBytes file;
  file.weights = random_weights(kind.type, rows, columns, random);
  file.info = {.name = "weights",
               .type = kind.type,
               .shape = {rows, columns},
               .file = 0,
               .offset = 0,
               .bytes = file.weights.size(),
               .group_rows = kind.group_rows,
               .group_columns = kind.group_columns};
  if (kind.group_columns == 0) return file;
  uint32_t scale_rows = (rows + kind.group_rows - 1) / kind.group_rows;
  uint32_t scale_columns = (columns + kind.group_columns - 1) / kind.group_columns;
  file.scales = random_weights(kind.scale_type, scale_rows, scale_columns, random);
  file.info.scales =
      std::make_shared<const formats::TensorInfo>(formats::TensorInfo{.name = "scales",
                                                                      .type = kind.scale_type,
                                                                      .shape = {scale_rows, scale_columns},
                                                                      .file = 0,
                                                                      .offset = 0,
                                                                      .bytes = file.scales.size()});
  if (kind.type == formats::TensorType::affine4 || kind.type == formats::TensorType::affine8) {
    file.biases = random_weights(kind.scale_type, scale_rows, scale_columns, random);
    file.info.biases = file.info.scales;
  }
  return file;
}

// Mostly ordinary values; some blocks are zero, denormal, huge or of mixed magnitude.
inline std::vector<float> awkward_values(size_t count, Random& random) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i += 32) {
    uint64_t kind = random() % 12;
    for (size_t j = i; j < std::min(count, i + 32); ++j) {
      float value = normal(random);
      if (kind == 0) value = 0;
      if (kind == 1) value *= 1e-39f;
      if (kind == 2) value *= 1e15f;
      if (kind == 3 && random() % 4 == 0) value *= 1e4f;
      if (kind == 4) value = -0.0f;
      values[j] = value;
    }
  }
  return values;
}

inline std::vector<float> normal_values(size_t count, Random& random) {
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

inline std::vector<float> product(const Kernels& kernels, const PackedMatrix& matrix,
                                  std::span<const float> input, uint32_t row_count, unsigned threads = 1) {
  ThreadPool pool(threads);
  Arena arena;
  std::vector<float> output(size_t{row_count} * matrix.rows(), -7.0f);
  ProductOutput target = {&matrix, output.data()};
  MatrixProduct(kernels, pool, arena).run(input.data(), row_count, matrix.columns(), std::span(&target, 1));
  return output;
}

inline PackedMatrix pack(const FileMatrix& file) {
  ThreadPool pool(1);
  auto packed = PackedMatrix::pack(file, {.rows = file.rows(), .columns = file.columns()}, pool);
  EXPECT_TRUE(packed.has_value());
  return *std::move(packed);
}
inline PackedMatrix pack(formats::TensorType type, const Bytes& bytes, uint32_t rows, uint32_t columns) {
  return pack(FileMatrix{.type = type, .file_rows = rows, .file_columns = columns, .weights = bytes});
}

// The tables beside portable's; says which instruction sets cannot be compared here.
inline std::vector<const Kernels*> fast_kernels() {
  std::vector<const Kernels*> found;
  for (const KernelVariant& variant : kernel_variants()) {
    if (variant.kernels->isa != Isa::portable) found.push_back(variant.kernels);
  }
  for (Isa isa : {Isa::avx2, Isa::avx512, Isa::amx, Isa::neon}) {
    if (!select_kernels(isa).has_value())
      std::cout << "[ SKIPPED  ] " << to_string(isa) << ": this machine lacks it\n";
  }
  return found;
}

// The same and, where AVX-512 is, the products of AMX over modelled tiles (amx/model_kernels_test.cpp).
const Kernels& amx_model_kernels();
inline std::vector<const Kernels*> product_kernels() {
  std::vector<const Kernels*> found = fast_kernels();
#if defined(__x86_64__)
  if (select_kernels(Isa::avx512).has_value()) found.push_back(&amx_model_kernels());
#endif
  return found;
}
inline const Kernels& reference_kernels() {
  return **select_kernels(Isa::portable);
}

// Rows of `size` values as a KV cache of `type` gives them back.
inline std::vector<float> as_cached(KvType type, std::vector<float> values, size_t size) {
  if (type == KvType::f16) {
    for (float& value : values) value = formats::f16_to_f32(formats::f32_to_f16(value));
  }
  if (type != KvType::q8) return values;
  for (size_t row = 0; row < values.size(); row += size) {
    for (size_t first = row; first < row + size; first += 32) {
      std::span block = std::span(values).subspan(first, std::min<size_t>(32, row + size - first));
      float largest = 0;
      for (float value : block) largest = std::max(largest, std::abs(value));
      float scale = formats::f16_to_f32(formats::f32_to_f16(largest / 127.0f));
      for (float& value : block) {
        value = largest == 0 ? 0 : scale * std::nearbyint(value * (127.0f / largest));
      }
    }
  }
  return values;
}

// Bit equality; names the first difference.
inline ::testing::AssertionResult same_bits(std::span<const float> expected, std::span<const float> seen) {
  if (expected.size() != seen.size()) {
    return ::testing::AssertionFailure() << "sizes " << expected.size() << " and " << seen.size();
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(&expected[i], &seen[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure()
             << "value " << i << ": expected " << expected[i] << ", seen " << seen[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace shoal::engine::cpu
