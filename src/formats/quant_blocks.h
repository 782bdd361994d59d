// The insides of ggml's quantised blocks, for whoever reads them: where each field lies and how scales are
// packed. All quants of a block's value are integers; w = scale * q - minimum with the scales below. Offsets
// are bytes from the start of the block; sizes are in tensor_type.cpp. After ggml's ggml-common.h and
// ggml-quants.c.
//
//   Q4_1    f16 d, f16 m, 16 nibble bytes                       w = d * q + m
//   Q5_0    f16 d, u32 fifth bits, 16 nibble bytes              w = d * (q - 16)
//   Q5_1    f16 d, f16 m, u32 fifth bits, 16 nibble bytes       w = d * q + m
//   IQ4_NL  f16 d, 16 nibble bytes                              w = d * kIq4Values[q]
//   MXFP4   e8m0 e, 16 nibble bytes                             w = 2^(e - 128) * kFp4Doubled[q]
//   In these, byte i holds value i in its low and value i + 16 in its high nibble; fifth bit i is value i's.
//
//   Q2_K    16 bytes (scale | minimum << 4), 64 quant bytes, f16 d, f16 dmin
//   Q3_K    32 bytes of third bits, 64 quant bytes, 12 bytes of scales, f16 d
//   Q4_K    f16 d, f16 dmin, 12 bytes of scales and minima, 128 nibble bytes
//   Q5_K    f16 d, f16 dmin, 12 bytes of scales and minima, 32 bytes of fifth bits, 128 nibble bytes
//   Q6_K    128 nibble bytes, 64 bytes of upper bit pairs, 16 int8 scales, f16 d
//   IQ4_XS  f16 d, u16 upper scale bits, 4 bytes of lower scale bits, 128 nibble bytes
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "formats/half.h"
#include "formats/small_floats.h"

namespace shoal::formats {

inline constexpr std::array<int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113};

inline uint8_t load_u8(const std::byte* from) {
  return std::to_integer<uint8_t>(*from);
}
inline uint16_t load_u16(const std::byte* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline uint32_t load_u32(const std::byte* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline float load_f16(const std::byte* from) {
  return f16_to_f32(load_u16(from));
}

// 2^(bits - 128): MXFP4's scale for the doubled values of kFp4Doubled. ggml knows no NaN here: 255 is 2^127.
constexpr float mxfp4_half_scale(uint8_t bits) {
  return std::bit_cast<float>(bits < 2 ? 0x00200000u << bits : uint32_t{bits - 1u} << 23);
}

struct ScaleAndMinimum {
  uint8_t scale;    // 0..63
  uint8_t minimum;  // 0..63
};

// Q4_K and Q5_K: of sub-block 0..7 (32 values each), w = d * scale * q - dmin * minimum. Four pairs lie in
// the low 6 bits of bytes 0-7; the rest is split between the nibbles of bytes 8-11 and the spare top bits of
// bytes 0-7.
inline ScaleAndMinimum unpack_k4_scale(const std::byte* packed, size_t sub_block) {
  auto byte = [&](size_t i) { return load_u8(packed + i); };
  auto narrow = [](int bits) { return static_cast<uint8_t>(bits); };
  const size_t i = sub_block;
  if (i < 4) return {narrow(byte(i) & 63), narrow(byte(i + 4) & 63)};
  return {narrow((byte(i + 4) & 15) | (byte(i - 4) >> 6) << 4),
          narrow(byte(i + 4) >> 4 | (byte(i) >> 6) << 4)};
}

// Q3_K: of sub-block 0..15 (16 values each), -32..31, w = d * scale * q with q from -4 to 3. Low nibbles in
// bytes 0-7, the upper bit pairs in bytes 8-11.
inline int8_t unpack_q3_k_scale(const std::byte* packed, size_t sub_block) {
  const int low = load_u8(packed + sub_block % 8) >> (sub_block / 8 * 4) & 15;
  const int high = load_u8(packed + 8 + sub_block % 4) >> (sub_block / 4 * 2) & 3;
  return static_cast<int8_t>((low | high << 4) - 32);
}

// IQ4_XS: of sub-block 0..7 (32 values each), -32..31, w = d * scale * kIq4Values[q]. `block` is the whole
// block.
inline int8_t unpack_iq4_xs_scale(const std::byte* block, size_t sub_block) {
  const int low = load_u8(block + 4 + sub_block / 2) >> (sub_block % 2 * 4) & 15;
  const int high = load_u16(block + 2) >> (sub_block * 2) & 3;
  return static_cast<int8_t>((low | high << 4) - 32);
}

}  // namespace shoal::formats
