#include "engine/cpu/packing.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/cpu/packing_lanes.h"
#include "formats/half.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorType;

// Nibble i to the low half of byte i, and back.
uint64_t spread_nibbles(uint32_t nibbles) {
  uint64_t x = nibbles;
  x = (x | x << 16) & 0x0000ffff0000ffffu;
  x = (x | x << 8) & 0x00ff00ff00ff00ffu;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}
uint32_t join_nibbles(uint64_t x) {
  x &= 0x0f0f0f0f0f0f0f0fu;
  x = (x | x >> 4) & 0x00ff00ff00ff00ffu;
  x = (x | x >> 8) & 0x0000ffff0000ffffu;
  return static_cast<uint32_t>(x | x >> 16);
}
// Bit 4j + b to bit j of byte b.
uint32_t fifth_bits(uint32_t bits) {
  uint32_t result = 0;
  for (uint32_t b = 0; b < 4; ++b) {
    uint32_t x = (bits >> b) & 0x11111111u;
    x = (x | x >> 3) & 0x03030303u;
    x = (x | x >> 6) & 0x000f000fu;
    result |= ((x | x >> 12) & 0xffu) << 8 * b;
  }
  return result;
}

// --- Part of a row into its lane of a part of a panel, for each type of a file ---

template <size_t value_bytes>
bool pack_values(uint8_t* panel, size_t lane, const RowStrip& strip) {
  for (size_t k = 0; k < strip.columns; ++k) {
    std::memcpy(panel + (k * kLanes + lane) * value_bytes, strip.weights + k * value_bytes, value_bytes);
  }
  return true;
}

// Pairs of blocks of 32: two scales and then the words of each block, `words` of them x16.
template <size_t file_bytes, size_t words, class PutBlock>
bool pack_pairs(uint8_t* panel, size_t lane, const RowStrip& strip, PutBlock put_block) {
  const uint8_t* block = strip.weights;
  for (size_t b = 0; b < strip.columns / 32; ++b, block += file_bytes) {
    uint8_t* pair = panel + b / 2 * (64 + 2 * 64 * words);
    put_half(pair + b % 2 * 32, lane, block);
    put_block(pair + 64 + b % 2 * 64 * words, block + 2);
  }
  return true;
}

bool pack_q8_0(uint8_t* panel, size_t lane, const RowStrip& strip) {
  return pack_pairs<34, 8>(panel, lane, strip, [&](uint8_t* to, const uint8_t* from) {
    for (size_t i = 0; i < 8; ++i) put_word(to, i, lane, word_at(from + 4 * i) ^ 0x80808080u);
  });
}

bool pack_nibbles(uint8_t* panel, size_t lane, const RowStrip& strip) {  // q4_0 and iq4_nl
  return pack_pairs<18, 4>(panel, lane, strip,
                           [&](uint8_t* to, const uint8_t* from) { put_words<4>(to, lane, from); });
}

bool pack_q5_0(uint8_t* panel, size_t lane, const RowStrip& strip) {
  return pack_pairs<22, 5>(panel, lane, strip, [&](uint8_t* to, const uint8_t* from) {
    put_words<4>(to, lane, from + 4);
    put_word(to, 4, lane, fifth_bits(word_at(from)));
  });
}

bool pack_q4_1(uint8_t* panel, size_t lane, const RowStrip& strip) {
  for (size_t b = 0; b < strip.columns / 32; ++b, panel += 64 + 256) {
    const uint8_t* block = strip.weights + 20 * b;
    put_half(panel, lane, block);
    put_half(panel + 32, lane, block + 2);
    put_words<4>(panel + 64, lane, block + 4);
  }
  return true;
}

bool pack_q5_1(uint8_t* panel, size_t lane, const RowStrip& strip) {
  for (size_t b = 0; b < strip.columns / 32; ++b, panel += 64 + 320) {
    const uint8_t* block = strip.weights + 24 * b;
    put_half(panel, lane, block);
    put_half(panel + 32, lane, block + 2);
    put_words<4>(panel + 64, lane, block + 8);
    put_word(panel + 64, 4, lane, fifth_bits(word_at(block + 4)));
  }
  return true;
}

template <uint32_t bits>
bool pack_affine(uint8_t* panel, size_t lane, const RowStrip& strip) {
  const size_t scale_bytes = formats::type_info(strip.scale_type).block_bytes;
  const uint8_t* weights = strip.weights;
  for (uint32_t column = 0, group = 0; column < strip.columns; column += 32, weights += 4 * bits) {
    if (column % strip.group_columns == 0) {
      std::memcpy(panel + lane * scale_bytes, strip.scales + group * scale_bytes, scale_bytes);
      std::memcpy(panel + (kLanes + lane) * scale_bytes, strip.biases + group * scale_bytes, scale_bytes);
      panel += 2 * kLanes * scale_bytes;
      ++group;
    }
    if constexpr (bits == 8) {
      put_words<8>(panel, lane, weights);
    } else {
      // The file has neighbours in a byte, the panel values i and i + 16.
      for (size_t i = 0; i < 2; ++i) {
        uint64_t bytes =
            spread_nibbles(word_at(weights + 4 * i)) | spread_nibbles(word_at(weights + 8 + 4 * i)) << 4;
        put_word(panel, 2 * i, lane, static_cast<uint32_t>(bytes));
        put_word(panel, 2 * i + 1, lane, static_cast<uint32_t>(bytes >> 32));
      }
    }
    panel += 64 * bits;
  }
  return true;
}

// E4M3 is read as f16 with the exponent 8 too small, which the scale makes good.
float f8_scale(const RowStrip& strip, size_t group) {
  if (!strip.scales) return 0x1p8f;
  if (strip.scale_type == TensorType::f32) {
    float scale;
    std::memcpy(&scale, strip.scales + 4 * group, 4);
    return 0x1p8f * scale;
  }
  uint16_t scale;
  std::memcpy(&scale, strip.scales + 2 * group, 2);
  return 0x1p8f *
         (strip.scale_type == TensorType::f16 ? formats::f16_to_f32(scale) : formats::bf16_to_f32(scale));
}

bool pack_f8(uint8_t* panel, size_t lane, const RowStrip& strip) {
  bool found_nan = false;
  for (uint32_t column = 0, group = 0; column < strip.columns; column += strip.group_columns, ++group) {
    const uint32_t count = std::min(strip.group_columns, strip.columns - column);
    const float scale = f8_scale(strip, group);
    std::memcpy(panel + 4 * lane, &scale, 4);
    panel += 64;
    const uint8_t* codes = strip.weights + column;
    for (uint32_t k = 0; k < count; ++k) {
      panel[size_t{k} * kLanes + lane] = codes[k];
      found_nan |= (codes[k] & 0x7f) == 0x7f;
    }
    panel += size_t{count} * kLanes;
  }
  return !found_nan;
}

template <class PutBlock>
bool pack_fp4(uint8_t* panel, size_t lane, size_t blocks, PutBlock put_block) {
  bool found_nan = false;
  for (size_t b = 0; b < blocks; ++b) {
    uint8_t* quad = panel + b / 4 * (64 + 4 * 256);
    uint8_t scale = put_block(quad + 64 + b % 4 * 256, b);
    quad[b % 4 * kLanes + lane] = scale;
    found_nan |= scale == 0xff;
  }
  return !found_nan;
}

bool pack_mxfp4(uint8_t* panel, size_t lane, const RowStrip& strip) {
  return pack_fp4(panel, lane, strip.columns / 32, [&](uint8_t* to, size_t b) {
    const uint8_t* block = strip.weights + 17 * b;
    for (size_t i = 0; i < 2; ++i) {
      uint64_t bytes = long_at(block + 1 + 8 * i);
      put_word(to, i, lane, join_nibbles(bytes));
      put_word(to, i + 2, lane, join_nibbles(bytes >> 4));
    }
    return block[0];
  });
}

bool pack_mxfp4_pairs(uint8_t* panel, size_t lane, const RowStrip& strip) {
  return pack_fp4(panel, lane, strip.columns / 32, [&](uint8_t* to, size_t b) {
    put_words<4>(to, lane, strip.weights + 16 * b);
    return strip.scales[b];
  });
}

using Packer = bool (*)(uint8_t* panel, size_t lane, const RowStrip& strip);

// By formats::TensorType.
constexpr std::array<Packer, formats::kTensorTypeCount> kPackers = {
    pack_values<4>, pack_values<2>, pack_values<2>, pack_q8_0,  pack_nibbles, pack_q4_k,
    pack_q6_k,      pack_q4_1,      pack_q5_0,      pack_q5_1,  pack_q2_k,    pack_q3_k,
    pack_q5_k,      pack_nibbles,   pack_iq4_xs,    pack_mxfp4, pack_f8,      pack_mxfp4_pairs,
    pack_affine<4>, pack_affine<8>, nullptr};

}  // namespace

bool pack_strip(TensorType type, uint8_t* panel, size_t lane, const RowStrip& strip) {
  return kPackers[static_cast<size_t>(type)](panel, lane, strip);
}

}  // namespace shoal::engine::cpu
