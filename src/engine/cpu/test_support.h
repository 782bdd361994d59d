// What the engine's tests share: random weights in the file's form, random activations with awkward values,
// and products through the public parts.
#pragma once

#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <iostream>
#include <random>
#include <vector>

#include "engine/cpu/kernels.h"
#include "engine/cpu/matrix_product.h"
#include "formats/dequantise.h"
#include "formats/half.h"

namespace shoal::engine::cpu {

inline constexpr formats::TensorType kAllTypes[] = {formats::TensorType::f32,  formats::TensorType::f16,
                                                    formats::TensorType::bf16, formats::TensorType::q8_0,
                                                    formats::TensorType::q4_0, formats::TensorType::q4_k,
                                                    formats::TensorType::q6_k};

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
        put(at, formats::f32_to_f16(scale));
        break;
      case TensorType::q4_k:
        put(at, formats::f32_to_f16(scale));
        put(at + 2, formats::f32_to_f16(normal(random) * 0.02f));
        break;
      case TensorType::q6_k:
        put(at + 208, formats::f32_to_f16(scale));
        break;
      default:
        break;
    }
  }
  return bytes;
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

inline PackedMatrix pack(formats::TensorType type, const Bytes& bytes, uint32_t rows, uint32_t columns) {
  ThreadPool pool(1);
  auto packed = PackedMatrix::pack(type, bytes, columns, 0, rows, 0, columns, pool);
  EXPECT_TRUE(packed.has_value());
  return *std::move(packed);
}

// The instruction sets beside portable; says so when there is none to compare.
inline std::vector<const Kernels*> fast_kernels() {
  std::vector<const Kernels*> found;
  for (Isa isa : {Isa::avx2, Isa::avx512}) {
    auto kernels = select_kernels(isa);
    if (kernels.has_value()) {
      found.push_back(*kernels);
    } else {
      std::cout << "[ SKIPPED  ] " << to_string(isa) << ": this machine lacks it\n";
    }
  }
  return found;
}
inline const Kernels& reference_kernels() {
  return **select_kernels(Isa::portable);
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
