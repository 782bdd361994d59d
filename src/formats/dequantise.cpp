#include "formats/dequantise.h"

#include <cstring>
#include <fmt/format.h>

#include "formats/half.h"

namespace shoal::formats {
namespace {

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

float load_f16(const std::byte* from) {
  return f16_to_f32(load<uint16_t>(from));
}

// f16 scale, 32 int8: w = scale * q.
void dequantise_q8_0(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  for (size_t i = 0; i < 32; ++i) values[i] = scale * static_cast<float>(load<int8_t>(block + 2 + i));
}

// f16 scale, 16 bytes: low nibbles are values 0-15, high nibbles 16-31, w = scale * (q - 8).
void dequantise_q4_0(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  for (size_t i = 0; i < 16; ++i) {
    const auto byte = load<uint8_t>(block + 2 + i);
    values[i] = scale * static_cast<float>((byte & 15) - 8);
    values[i + 16] = scale * static_cast<float>((byte >> 4) - 8);
  }
}

struct ScaleAndMinimum {
  float scale;
  float minimum;
};

// Eight 6-bit (scale, minimum) pairs in 12 bytes: four pairs in the low 6 bits of bytes 0-7, the rest split
// between the nibbles of bytes 8-11 and the spare top bits of bytes 0-7.
ScaleAndMinimum unpack_q4_k_pair(const std::byte* packed, size_t index) {
  auto byte = [&](size_t i) { return load<uint8_t>(packed + i); };
  int scale = byte(index) & 63;
  int minimum = byte(index + 4) & 63;
  if (index >= 4) {
    scale = (byte(index + 4) & 15) | (byte(index - 4) >> 6) << 4;
    minimum = (byte(index + 4) >> 4) | (byte(index) >> 6) << 4;
  }
  return {static_cast<float>(scale), static_cast<float>(minimum)};
}

// f16 d, f16 dmin, 12 bytes of scales, 128 bytes of nibbles, for 8 sub-blocks of 32:
// w = d * scale * q - dmin * minimum. Sub-blocks 2j and 2j + 1 share 32 bytes: low and high nibbles.
void dequantise_q4_k(const std::byte* block, float* values) {
  const float d = load_f16(block);
  const float d_minimum = load_f16(block + 2);
  const std::byte* nibbles = block + 16;
  for (size_t sub = 0; sub < 8; ++sub) {
    const auto pair = unpack_q4_k_pair(block + 4, sub);
    const float scale = d * pair.scale;
    const float minimum = d_minimum * pair.minimum;
    const std::byte* source = nibbles + (sub / 2) * 32;
    for (size_t i = 0; i < 32; ++i) {
      const auto byte = load<uint8_t>(source + i);
      const int quant = sub % 2 == 0 ? byte & 15 : byte >> 4;
      values[sub * 32 + i] = scale * static_cast<float>(quant) - minimum;
    }
  }
}

// 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 int8 scales (one per 16 values), f16 d:
// w = d * scale * (q - 32). Each half of 128 values uses 64 + 32 bytes: its quarter k takes nibble k / 2 of
// byte (k % 2) * 32 + i.
void dequantise_q6_k(const std::byte* block, float* values) {
  const float d = load_f16(block + 208);
  for (size_t half = 0; half < 2; ++half) {
    const std::byte* low = block + half * 64;
    const std::byte* high = block + 128 + half * 32;
    const std::byte* scales = block + 192 + half * 8;
    for (size_t quarter = 0; quarter < 4; ++quarter) {
      for (size_t i = 0; i < 32; ++i) {
        const int nibble = (load<uint8_t>(low + (quarter % 2) * 32 + i) >> (quarter / 2) * 4) & 15;
        const int upper = (load<uint8_t>(high + i) >> (quarter * 2)) & 3;
        const float scale = d * static_cast<float>(load<int8_t>(scales + quarter * 2 + i / 16));
        values[half * 128 + quarter * 32 + i] = scale * static_cast<float>((nibble | upper << 4) - 32);
      }
    }
  }
}

void dequantise_block(TensorType type, const std::byte* block, float* values) {
  switch (type) {
    case TensorType::f32:
      *values = load<float>(block);
      return;
    case TensorType::f16:
      *values = load_f16(block);
      return;
    case TensorType::bf16:
      *values = bf16_to_f32(load<uint16_t>(block));
      return;
    case TensorType::q8_0:
      dequantise_q8_0(block, values);
      return;
    case TensorType::q4_0:
      dequantise_q4_0(block, values);
      return;
    case TensorType::q4_k:
      dequantise_q4_k(block, values);
      return;
    case TensorType::q6_k:
      dequantise_q6_k(block, values);
      return;
    default:
      return;
  }
}

}  // namespace

Result<> dequantise(TensorType type, ByteView row, std::span<float> values) {
  SHOAL_TRY(const uint64_t expected, tensor_bytes(type, 1, values.size()));
  if (row.size() != expected) {
    return fail(ErrorCode::malformed, fmt::format("{} values of {} take {} bytes, not {}", values.size(),
                                                  to_string(type), expected, row.size()));
  }
  const auto& info = type_info(type);
  const size_t blocks = values.size() / info.block_values;
  for (size_t i = 0; i < blocks; ++i) {
    dequantise_block(type, row.data() + i * info.block_bytes, values.data() + i * info.block_values);
  }
  return {};
}

}  // namespace shoal::formats
