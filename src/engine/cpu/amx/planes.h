// Blocks of 256 as planes of bytes for tiles. A weight of such a block is, but for its block's scale d, the
// integer code * sub_scale. One or two planes of bytes hold these integers exactly, so that the dot product
// of a whole block stays an integer in a tile:
//   q2_k:            one plane, code * sub_scale <= 45
//   q3_k:            one plane, -(code * sub_scale), in -128 .. 124
//   q4_k, q5_k:      code * sub_scale = first + 8 * second, the code times the lower and the upper three bits
//                    of the sub-scale, at most 217
//   q6_k, iq4_xs:    code * sub_scale = first + 256 * second, its lower and upper byte; second is signed
// A plane is 64 words x16 in the order of the row's values.
#pragma once

#include "engine/cpu/amx/products.h"

namespace shoal::engine::cpu {
namespace {

constexpr size_t kPlaneBytes = 4096;

struct alignas(64) Planes {
  uint8_t first[kPlaneBytes];
  uint8_t second[kPlaneBytes];
  float scales[16];          // d
  float minimum_scales[16];  // dmin
  int32_t minima[8][16];     // two int16 each, as the activations' sums
};

// Sixteen lanes as both halves of each.
inline __m512i in_both_halves(I32x16 value) {
  const __m512i low = _mm512_and_si512(value.lanes, _mm512_set1_epi32(0xffff));
  return _mm512_or_si512(low, _mm512_slli_epi32(value.lanes, 16));
}
// Bytes times a factor for each lane; every product must fit its byte.
inline U8x64 multiply_bytes(U8x64 bytes, __m512i factors) {
  return {_mm512_mullo_epi16(bytes.lanes, factors)};
}
inline __m512i even_bytes_of(__m512i even, __m512i odd) {  // and the odd ones of the other
  return _mm512_mask_mov_epi8(odd, 0x5555555555555555u, even);
}
// The low bytes of the products of signed bytes and signed factors.
inline U8x64 multiply_signed_bytes(U8x64 bytes, __m512i factors) {
  const __m512i odd = _mm512_and_si512(bytes.lanes, _mm512_set1_epi16(static_cast<short>(0xff00)));
  return {even_bytes_of(_mm512_mullo_epi16(bytes.lanes, factors), _mm512_mullo_epi16(odd, factors))};
}
// Both bytes of (code - zero) * factor.
template <int zero>
inline void put_wide_products(U8x64 codes, __m512i factors, size_t at, Planes& planes) {
  const __m512i zeros = _mm512_set1_epi16(zero);
  const __m512i low = _mm512_and_si512(codes.lanes, _mm512_set1_epi16(0xff));
  const __m512i even = _mm512_mullo_epi16(_mm512_sub_epi16(low, zeros), factors);
  const __m512i high = _mm512_srli_epi16(codes.lanes, 8);
  const __m512i odd = _mm512_mullo_epi16(_mm512_sub_epi16(high, zeros), factors);
  store_bytes(planes.first + at, {even_bytes_of(even, _mm512_slli_epi16(odd, 8))});
  store_bytes(planes.second + at, {even_bytes_of(_mm512_srli_epi16(even, 8), odd)});
}

// `values` of sub-block or pair `index` start at byte index * values * 16 of a plane.
constexpr size_t plane_offset(int index, int values) {
  return static_cast<size_t>(index) * static_cast<size_t>(values) * 16;
}

struct Q2Planes {
  static constexpr size_t kBytes = 1344;
  static constexpr bool kTwoPlanes = false, kSigned = false, kSecondSigned = false;
  static constexpr uint32_t kMinima = 8;  // words of minima; sums of sixteen
  static constexpr bool kSumsOf16 = true;
  static I32x16 join(I32x16 first, I32x16 second) { return add(first, second); }

  template <int quarter>
  static void unpack_quarter(const uint8_t* panel, int half, Planes& planes) {
    const I32x16 both = load_u8(panel + 64 + (half * 4 + quarter) * 16);
    const __m512i factors[2] = {in_both_halves(bit_and(both, broadcast(int32_t{15}))),
                                in_both_halves(shift_right_arithmetic<4>(both))};
    for (int sub = 0; sub < 2; ++sub) {
      const uint8_t* words = panel + 320 + half * 512 + sub * 256;
      uint8_t* to = planes.first + plane_offset(half * 8 + quarter * 2 + sub, 16);
      for (int i = 0; i < 4; ++i) {
        store_bytes(to + 64 * i,
                    multiply_bytes(two_bits<2 * quarter>(load_bytes(words + 64 * i)), factors[sub]));
      }
    }
  }
  static void unpack(const uint8_t* panel, Planes& planes) {
    for (int half = 0; half < 2; ++half) {
      unpack_quarter<0>(panel, half, planes);
      unpack_quarter<1>(panel, half, planes);
      unpack_quarter<2>(panel, half, planes);
      unpack_quarter<3>(panel, half, planes);
    }
    for (int p = 0; p < 8; ++p) {
      const I32x16 both = load_u8(panel + 192 + 16 * p);
      const I32x16 minima = bit_and(add(both, shift_left<12>(both)), broadcast(int32_t{0x000f000f}));
      _mm512_storeu_si512(planes.minima[p], minima.lanes);
    }
  }
};

struct Q3Planes {
  static constexpr size_t kBytes = 1792;
  static constexpr bool kTwoPlanes = false, kSigned = true, kSecondSigned = true;
  static constexpr uint32_t kMinima = 0;
  static constexpr bool kSumsOf16 = false;
  static I32x16 join(I32x16 first, I32x16 second) {
    return {_mm512_sub_epi32(_mm512_setzero_si512(), add(first, second).lanes)};
  }

  template <int index>
  static I32x16 load_scale(const uint8_t* panel) {
    I32x16 low = load_u8(panel + 64 + index / 2 * 16), high = load_u8(panel + 192 + index / 4 * 16);
    if constexpr (index % 2 == 1) low = shift_right_arithmetic<4>(low);
    high = shift_left<4>(shift_right_arithmetic<index % 4 * 2>(high));
    return add(add(bit_and(low, broadcast(int32_t{15})), bit_and(high, broadcast(int32_t{48}))),
               broadcast(int32_t{-32}));
  }
  template <int index>
  static void unpack_sub(const uint8_t* panel, Planes& planes) {
    constexpr int half = index / 8, quarter = index / 2 % 4, sub = index % 2;
    const uint8_t *low = panel + 256 + half * 512 + sub * 256, *third = panel + 256 + 1024 + sub * 256;
    const __m512i factors = in_both_halves(load_scale<index>(panel));
    for (int i = 0; i < 4; ++i) {
      const U8x64 codes = join_bit<4 * half + quarter, 2>(two_bits<2 * quarter>(load_bytes(low + 64 * i)),
                                                          load_bytes(third + 64 * i));
      const U8x64 negated = {_mm512_sub_epi8(_mm512_set1_epi8(4), codes.lanes)};
      store_bytes(planes.first + plane_offset(index, 16) + 64 * i, multiply_signed_bytes(negated, factors));
    }
  }
  template <int first>
  static void unpack_half(const uint8_t* panel, Planes& planes) {
    unpack_sub<first>(panel, planes);
    unpack_sub<first + 1>(panel, planes);
    unpack_sub<first + 2>(panel, planes);
    unpack_sub<first + 3>(panel, planes);
    unpack_sub<first + 4>(panel, planes);
    unpack_sub<first + 5>(panel, planes);
    unpack_sub<first + 6>(panel, planes);
    unpack_sub<first + 7>(panel, planes);
  }
  static void unpack(const uint8_t* panel, Planes& planes) {
    unpack_half<0>(panel, planes);
    unpack_half<8>(panel, planes);
  }
};

// q4_k, and q5_k with `fifth` bits behind the nibbles.
template <bool fifth>
struct NibblePlanes {
  static constexpr size_t kBytes = fifth ? 2880 : 2368;
  static constexpr bool kTwoPlanes = true, kSigned = false, kSecondSigned = false;
  static constexpr uint32_t kMinima = 4;  // sums of thirty-two
  static constexpr bool kSumsOf16 = false;
  static I32x16 join(I32x16 first, I32x16 second) { return add(first, shift_left<3>(second)); }

  template <int sub>
  static void unpack_sub(const uint8_t* panel, Planes& planes) {
    const I32x16 scales = load_u8(panel + 64 + sub * 16);
    const __m512i low = in_both_halves(bit_and(scales, broadcast(int32_t{7})));
    const __m512i high = in_both_halves(shift_right_arithmetic<3>(scales));
    const size_t to = plane_offset(sub, 32);
    for (size_t i = 0; i < 8; ++i) {
      const U8x64 both = load_bytes(panel + 320 + sub / 2 * 512 + 64 * i);
      U8x64 codes = sub % 2 == 0 ? low_nibbles(both) : high_nibbles(both);
      if constexpr (fifth) codes = join_bit<sub, 4>(codes, load_bytes(panel + 320 + 2048 + 64 * i));
      store_bytes(planes.first + to + 64 * i, multiply_bytes(codes, low));
      store_bytes(planes.second + to + 64 * i, multiply_bytes(codes, high));
    }
  }
  static void unpack(const uint8_t* panel, Planes& planes) {
    unpack_sub<0>(panel, planes);
    unpack_sub<1>(panel, planes);
    unpack_sub<2>(panel, planes);
    unpack_sub<3>(panel, planes);
    unpack_sub<4>(panel, planes);
    unpack_sub<5>(panel, planes);
    unpack_sub<6>(panel, planes);
    unpack_sub<7>(panel, planes);
    for (int p = 0; p < 4; ++p) {
      _mm512_storeu_si512(planes.minima[p], _mm512_cvtepu8_epi16(load_256(panel + 192 + 32 * p)));
    }
  }
};

struct WidePlanes {
  static constexpr bool kTwoPlanes = true, kSigned = false, kSecondSigned = true;
  static constexpr uint32_t kMinima = 0;
  static constexpr bool kSumsOf16 = false;
  static I32x16 join(I32x16 first, I32x16 second) { return add(first, shift_left<8>(second)); }
};

struct Q6Planes : WidePlanes {
  static constexpr size_t kBytes = 3392;

  template <int quarter>
  static void unpack_quarter(const uint8_t* panel, int half, Planes& planes) {
    const uint8_t* low = panel + 320 + half * 1024 + (quarter % 2) * 512;
    const uint8_t* high = panel + 320 + 2048 + half * 512;
    for (int sub = 0; sub < 2; ++sub, low += 256, high += 256) {
      const int index = half * 8 + quarter * 2 + sub;
      const __m512i factors = in_both_halves(load_i8(panel + 64 + index * 16));
      for (size_t i = 0; i < 4; ++i) {
        const U8x64 both = load_bytes(low + 64 * i);
        const U8x64 codes = join_high_bits<2 * quarter>(quarter < 2 ? low_nibbles(both) : high_nibbles(both),
                                                        load_bytes(high + 64 * i));
        put_wide_products<32>(codes, factors, plane_offset(index, 16) + 64 * i, planes);
      }
    }
  }
  static void unpack(const uint8_t* panel, Planes& planes) {
    for (int half = 0; half < 2; ++half) {
      unpack_quarter<0>(panel, half, planes);
      unpack_quarter<1>(panel, half, planes);
      unpack_quarter<2>(panel, half, planes);
      unpack_quarter<3>(panel, half, planes);
    }
  }
};

struct Iq4Planes : WidePlanes {
  static constexpr size_t kBytes = 2240;

  static void unpack(const uint8_t* panel, Planes& planes) {
    for (int sub = 0; sub < 8; ++sub) {
      const __m512i factors = in_both_halves(load_i8(panel + 64 + sub * 16));
      const size_t to = plane_offset(sub, 32);
      for (size_t i = 0; i < 4; ++i) {
        const U8x64 both = load_bytes(panel + 192 + sub * 256 + 64 * i);
        put_wide_products<128>(look_up(kIq4Codes, low_nibbles(both)), factors, to + 64 * i, planes);
        put_wide_products<128>(look_up(kIq4Codes, high_nibbles(both)), factors, to + 64 * (i + 4), planes);
      }
    }
  }
};

}  // namespace
}  // namespace shoal::engine::cpu
