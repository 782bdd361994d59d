// Packers of the types with blocks of 256.
#include "engine/cpu/packing_lanes.h"
#include "formats/quant_blocks.h"

namespace shoal::engine::cpu {
namespace {

// The scales and minima of q4_k and q5_k, which start alike.
void put_k4_scales(uint8_t* panel, size_t lane, const uint8_t* block) {
  put_half(panel, lane, block);
  put_half(panel + 32, lane, block + 2);
  for (size_t i = 0; i < 8; ++i) {
    formats::ScaleAndMinimum sub = formats::unpack_k4_scale(bytes_at(block + 4), i);
    panel[64 + 16 * i + lane] = sub.scale;
    panel[192 + 32 * (i / 2) + 2 * lane + i % 2] = sub.minimum;
  }
}

}  // namespace

bool pack_q2_k(uint8_t* panel, size_t lane, const RowStrip& strip) {
  const uint8_t* block = strip.weights;
  for (size_t b = 0; b < strip.columns / 256; ++b, block += 84, panel += 1344) {
    put_half(panel, lane, block + 80);
    put_half(panel + 32, lane, block + 82);
    for (size_t i = 0; i < 8; ++i) {
      uint8_t even = block[2 * i], odd = block[2 * i + 1];
      panel[64 + 16 * i + lane] = static_cast<uint8_t>((even & 15) | odd << 4);
      panel[192 + 16 * i + lane] = static_cast<uint8_t>(even >> 4 | (odd & 0xf0));
    }
    put_words<16>(panel + 320, lane, block + 16);
  }
  return true;
}

bool pack_q3_k(uint8_t* panel, size_t lane, const RowStrip& strip) {
  const uint8_t* block = strip.weights;
  for (size_t b = 0; b < strip.columns / 256; ++b, block += 110, panel += 1792) {
    put_half(panel, lane, block + 108);
    uint8_t low[8] = {}, high[4] = {};
    for (size_t i = 0; i < 16; ++i) {
      const int scale = formats::unpack_q3_k_scale(bytes_at(block + 96), i) + 32;
      low[i / 2] = static_cast<uint8_t>(low[i / 2] | (scale & 15) << i % 2 * 4);
      high[i / 4] = static_cast<uint8_t>(high[i / 4] | (scale >> 4) << i % 4 * 2);
    }
    for (size_t i = 0; i < 8; ++i) panel[64 + 16 * i + lane] = low[i];
    for (size_t i = 0; i < 4; ++i) panel[192 + 16 * i + lane] = high[i];
    put_words<16>(panel + 256, lane, block + 32);
    put_words<8>(panel + 256 + 1024, lane, block);
  }
  return true;
}

bool pack_q4_k(uint8_t* panel, size_t lane, const RowStrip& strip) {
  const uint8_t* block = strip.weights;
  for (size_t b = 0; b < strip.columns / 256; ++b, block += 144, panel += 2368) {
    put_k4_scales(panel, lane, block);
    put_words<32>(panel + 320, lane, block + 16);
  }
  return true;
}

bool pack_q5_k(uint8_t* panel, size_t lane, const RowStrip& strip) {
  const uint8_t* block = strip.weights;
  for (size_t b = 0; b < strip.columns / 256; ++b, block += 176, panel += 2880) {
    put_k4_scales(panel, lane, block);
    put_words<32>(panel + 320, lane, block + 48);
    put_words<8>(panel + 320 + 2048, lane, block + 16);
  }
  return true;
}

bool pack_q6_k(uint8_t* panel, size_t lane, const RowStrip& strip) {
  const uint8_t* block = strip.weights;
  for (size_t b = 0; b < strip.columns / 256; ++b, block += 210, panel += 3392) {
    put_half(panel, lane, block + 208);
    for (size_t i = 0; i < 16; ++i) panel[64 + 16 * i + lane] = block[192 + i];
    put_words<32>(panel + 320, lane, block);
    put_words<16>(panel + 320 + 2048, lane, block + 128);
  }
  return true;
}

bool pack_iq4_xs(uint8_t* panel, size_t lane, const RowStrip& strip) {
  const uint8_t* block = strip.weights;
  for (size_t b = 0; b < strip.columns / 256; ++b, block += 136, panel += 2240) {
    put_half(panel, lane, block);
    for (size_t i = 0; i < 8; ++i) {
      panel[64 + 16 * i + lane] = static_cast<uint8_t>(formats::unpack_iq4_xs_scale(bytes_at(block), i));
    }
    put_words<32>(panel + 192, lane, block + 8);
  }
  return true;
}

}  // namespace shoal::engine::cpu
