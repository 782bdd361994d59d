// Blocks of 32 weights with one scale.
#include "formats/dequantise_blocks.h"
#include "formats/quant_blocks.h"

namespace shoal::formats {
namespace {

// Byte i of 16 holds the nibbles of values i and i + 16.
template <class ValueOf>
void for_each_nibble(const std::byte* nibbles, float* values, ValueOf value_of) {
  for (size_t i = 0; i < 16; ++i) {
    const int byte = load_u8(nibbles + i);
    values[i] = value_of(byte & 15, i);
    values[i + 16] = value_of(byte >> 4, i + 16);
  }
}

}  // namespace

void dequantise_q8_0(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  for (size_t i = 0; i < 32; ++i) {
    values[i] = scale * static_cast<float>(static_cast<int8_t>(load_u8(block + 2 + i)));
  }
}

void dequantise_q4_0(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  for_each_nibble(block + 2, values,
                  [=](int quant, size_t) { return scale * static_cast<float>(quant - 8); });
}

void dequantise_q4_1(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  const float minimum = load_f16(block + 2);
  for_each_nibble(block + 4, values,
                  [=](int quant, size_t) { return scale * static_cast<float>(quant) + minimum; });
}

void dequantise_q5_0(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  const uint32_t fifth_bits = load_u32(block + 2);
  for_each_nibble(block + 6, values, [=](int quant, size_t i) {
    const int fifth = static_cast<int>(fifth_bits >> i & 1) << 4;
    return scale * static_cast<float>((quant | fifth) - 16);
  });
}

void dequantise_q5_1(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  const float minimum = load_f16(block + 2);
  const uint32_t fifth_bits = load_u32(block + 4);
  for_each_nibble(block + 8, values, [=](int quant, size_t i) {
    const int fifth = static_cast<int>(fifth_bits >> i & 1) << 4;
    return scale * static_cast<float>(quant | fifth) + minimum;
  });
}

void dequantise_iq4_nl(const std::byte* block, float* values) {
  const float scale = load_f16(block);
  for_each_nibble(block + 2, values, [=](int quant, size_t) {
    return scale * static_cast<float>(kIq4Values[static_cast<size_t>(quant)]);
  });
}

void dequantise_mxfp4(const std::byte* block, float* values) {
  const float half_scale = mxfp4_half_scale(load_u8(block));
  for_each_nibble(block + 1, values, [=](int quant, size_t) {
    return half_scale * static_cast<float>(kFp4Doubled[static_cast<size_t>(quant)]);
  });
}

}  // namespace shoal::formats
