#include "formats/small_floats.h"

#include <cmath>
#include <gtest/gtest.h>

namespace shoal::formats {
namespace {

TEST(SmallFloats, WidenEveryE4M3ToItsValue) {
  for (int bits = 0; bits < 256; ++bits) {
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const double sign = bits >= 128 ? -1 : 1;
    const double expected =
        sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
    const float widened = f8_e4m3_to_f32(static_cast<uint8_t>(bits));
    if ((bits & 127) == 127) {
      EXPECT_TRUE(std::isnan(widened)) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(widened), expected) << bits;
      EXPECT_EQ(std::signbit(widened), bits >= 128) << bits;
    }
  }
  EXPECT_EQ(f8_e4m3_to_f32(0x7e), 448.0f);
}

TEST(SmallFloats, WidenEveryE8M0ToItsPowerOfTwo) {
  for (int bits = 0; bits < 255; ++bits) {
    EXPECT_EQ(e8m0_to_f32(static_cast<uint8_t>(bits)), std::ldexp(1.0f, bits - 127)) << bits;
  }
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
}

TEST(SmallFloats, WidenEveryFp4) {
  const float expected[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (uint32_t nibble = 0; nibble < 16; ++nibble) {
    const float widened = fp4_to_f32(nibble);
    EXPECT_EQ(std::fabs(widened), expected[nibble & 7]) << nibble;
    EXPECT_EQ(std::signbit(widened), nibble >= 8) << nibble;
  }
}

}  // namespace
}  // namespace shoal::formats
