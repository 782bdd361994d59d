// Blocks of 256 weights in sub-blocks with small integer scales.
#include "formats/dequantise_blocks.h"
#include "formats/quant_blocks.h"

namespace shoal::formats {

// Each half of 128 values uses 32 quant bytes: its quarter k takes bit pair k of byte i.
void dequantise_q2_k(const std::byte* block, float* values) {
  const float d = load_f16(block + 80);
  const float d_minimum = load_f16(block + 82);
  for (size_t sub = 0; sub < 16; ++sub) {
    const int packed = load_u8(block + sub);
    const float scale = d * static_cast<float>(packed & 15);
    const float minimum = d_minimum * static_cast<float>(packed >> 4);
    const std::byte* quants = block + 16 + sub / 8 * 32 + sub % 2 * 16;
    const size_t shift = sub % 8 / 2 * 2;
    for (size_t i = 0; i < 16; ++i) {
      values[sub * 16 + i] = scale * static_cast<float>(load_u8(quants + i) >> shift & 3) - minimum;
    }
  }
}

// Quants as in Q2_K. Bit j of third-bit byte i belongs to value i of the j-th run of 32; a set bit means that
// no 4 is taken away.
void dequantise_q3_k(const std::byte* block, float* values) {
  const float d = load_f16(block + 108);
  for (size_t sub = 0; sub < 16; ++sub) {
    const float scale = d * static_cast<float>(unpack_q3_k_scale(block + 96, sub));
    const std::byte* third_bits = block + sub % 2 * 16;
    const std::byte* quants = block + 32 + sub / 8 * 32 + sub % 2 * 16;
    const size_t shift = sub % 8 / 2 * 2;
    for (size_t i = 0; i < 16; ++i) {
      const int low = load_u8(quants + i) >> shift & 3;
      const int third = load_u8(third_bits + i) >> (sub / 2) & 1;
      values[sub * 16 + i] = scale * static_cast<float>((low | third << 2) - 4);
    }
  }
}

// Sub-blocks 2j and 2j + 1 share 32 bytes: low and high nibbles.
void dequantise_q4_k(const std::byte* block, float* values) {
  const float d = load_f16(block);
  const float d_minimum = load_f16(block + 2);
  for (size_t sub = 0; sub < 8; ++sub) {
    const auto pair = unpack_k4_scale(block + 4, sub);
    const float scale = d * static_cast<float>(pair.scale);
    const float minimum = d_minimum * static_cast<float>(pair.minimum);
    const std::byte* nibbles = block + 16 + sub / 2 * 32;
    for (size_t i = 0; i < 32; ++i) {
      const int quant = load_u8(nibbles + i) >> (sub % 2 * 4) & 15;
      values[sub * 32 + i] = scale * static_cast<float>(quant) - minimum;
    }
  }
}

// As Q4_K; bit `sub` of fifth-bit byte i belongs to value i of the sub-block.
void dequantise_q5_k(const std::byte* block, float* values) {
  const float d = load_f16(block);
  const float d_minimum = load_f16(block + 2);
  for (size_t sub = 0; sub < 8; ++sub) {
    const auto pair = unpack_k4_scale(block + 4, sub);
    const float scale = d * static_cast<float>(pair.scale);
    const float minimum = d_minimum * static_cast<float>(pair.minimum);
    const std::byte* nibbles = block + 48 + sub / 2 * 32;
    for (size_t i = 0; i < 32; ++i) {
      const int low = load_u8(nibbles + i) >> (sub % 2 * 4) & 15;
      const int fifth = load_u8(block + 16 + i) >> sub & 1;
      values[sub * 32 + i] = scale * static_cast<float>(low | fifth << 4) - minimum;
    }
  }
}

// Each half of 128 values uses 64 nibble and 32 upper bytes: its quarter k takes nibble k / 2 of byte
// (k % 2) * 32 + i and bit pair k of upper byte i.
void dequantise_q6_k(const std::byte* block, float* values) {
  const float d = load_f16(block + 208);
  for (size_t sub = 0; sub < 16; ++sub) {
    const size_t half = sub / 8, quarter = sub % 8 / 2, first = sub % 2 * 16;
    const float scale = d * static_cast<float>(static_cast<int8_t>(load_u8(block + 192 + sub)));
    const std::byte* low = block + half * 64 + quarter % 2 * 32 + first;
    const std::byte* high = block + 128 + half * 32 + first;
    for (size_t i = 0; i < 16; ++i) {
      const int nibble = load_u8(low + i) >> (quarter / 2 * 4) & 15;
      const int upper = load_u8(high + i) >> (quarter * 2) & 3;
      values[sub * 16 + i] = scale * static_cast<float>((nibble | upper << 4) - 32);
    }
  }
}

// Each sub-block of 32 uses 16 bytes: byte i holds values i and i + 16.
void dequantise_iq4_xs(const std::byte* block, float* values) {
  const float d = load_f16(block);
  for (size_t sub = 0; sub < 8; ++sub) {
    const float scale = d * static_cast<float>(unpack_iq4_xs_scale(block, sub));
    for (size_t i = 0; i < 16; ++i) {
      const size_t byte = load_u8(block + 8 + sub * 16 + i);
      values[sub * 32 + i] = scale * static_cast<float>(kIq4Values[byte & 15]);
      values[sub * 32 + 16 + i] = scale * static_cast<float>(kIq4Values[byte >> 4]);
    }
  }
}

}  // namespace shoal::formats
