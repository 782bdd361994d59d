#include "formats/half.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

namespace shoal::formats {
namespace {

// The value that the bits of a half stand for, by the definition.
double half_by_definition(uint32_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10) & 31;
  const int mantissa = static_cast<int>(bits & 1023);
  if (exponent == 31) return mantissa != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, WidensEveryHalfToItsValue) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double expected = half_by_definition(bits);
    const float widened = f16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(widened)) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(widened), expected) << bits;
      EXPECT_EQ(std::signbit(widened), bits >= 0x8000) << bits;
    }
  }
}

TEST(Half, NarrowsEveryHalfBackToItself) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float widened = f16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(widened)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(widened)))) << bits;
    } else {
      EXPECT_EQ(f32_to_f16(widened), bits);
    }
  }
}

TEST(Half, RoundsBetweenNeighboursToTheNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = f16_to_f32(static_cast<uint16_t>(bits));
    const float high = f16_to_f32(static_cast<uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;  // exact: a half has 13 bits to spare
    const auto even = static_cast<uint16_t>(bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(f32_to_f16(middle), even) << bits;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, low)), bits);
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, high)), bits + 1);
    EXPECT_EQ(f32_to_f16(-middle), even | 0x8000) << bits;
  }
}

TEST(Half, OverflowsToInfinityFromHalfAStepAboveTheLargest) {
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::max()), 0xfc00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(BrainFloat, KeepsTheUpperHalfOfAFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float widened = bf16_to_f32(static_cast<uint16_t>(bits));
    EXPECT_EQ(std::bit_cast<uint32_t>(widened), bits << 16);
    if (std::isnan(widened)) {
      EXPECT_EQ(f32_to_bf16(widened), bits | 0x40);
    } else {
      EXPECT_EQ(f32_to_bf16(widened), bits);
    }
  }
}

TEST(BrainFloat, RoundsTiesToEven) {
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f807fffu)), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x7f800001u)), 0x7fc0) << "a NaN must not become infinity";
}

}  // namespace
}  // namespace shoal::formats
