#include <gtest/gtest.h>
#include <numbers>

#include "engine/cpu/rope_table.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kSizes[] = {1, 7, 15, 16, 17, 32, 33, 64, 100, 256, 257};

double units_in_the_last_place(float seen, double exact) {
  auto rounded = static_cast<float>(exact);
  double unit = static_cast<double>(std::nextafter(std::abs(rounded), INFINITY)) - std::abs(double{rounded});
  return std::abs(double{seen} - exact) / unit;
}

std::vector<float> exponential_inputs() {
  std::vector<float> inputs;
  for (int i = 0; i <= 200'000; ++i)
    inputs.push_back(-87.3f + static_cast<float>(i) * (87.3f + 88.3f) / 200'000);
  return inputs;
}

TEST(Exponential, IsWithinTwoUnitsInTheLastPlace) {
  std::vector<float> inputs = exponential_inputs(), outputs(inputs.size());
  reference_kernels().exponential(inputs.data(), inputs.size(), outputs.data());
  double worst = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    worst = std::max(worst, units_in_the_last_place(outputs[i], std::exp(double{inputs[i]})));
  }
  EXPECT_LT(worst, 2.0);
  EXPECT_GT(worst, 0.4);  // the comparison looked at something
}

TEST(Exponential, IsExactAtZeroAndZeroFarBelow) {
  float inputs[] = {0.0f, -0.0f, -88.0f, -1000.0f, -INFINITY, 1000.0f, INFINITY}, outputs[7];
  reference_kernels().exponential(inputs, 7, outputs);
  EXPECT_EQ(outputs[0], 1.0f);
  EXPECT_EQ(outputs[1], 1.0f);
  EXPECT_EQ(outputs[2], 0.0f);
  EXPECT_EQ(outputs[3], 0.0f);
  EXPECT_EQ(outputs[4], 0.0f);
  EXPECT_GT(outputs[5], 1e38f);
  EXPECT_TRUE(std::isfinite(outputs[6]));
}

TEST(Elementwise, EveryInstructionSetGivesPortableBits) {
  const Kernels& portable = reference_kernels();
  Random random(11);
  for (const Kernels* kernels : fast_kernels()) {
    for (uint32_t size : kSizes) {
      std::vector<float> a = awkward_values(size, random), b = awkward_values(size, random);
      for (float& value : a) value *= random() % 8 == 0 ? 60.0f : 1.0f;
      std::vector<float> expected(size), seen(size);
      auto compare = [&](const char* what, auto op) {
        op(portable, expected.data());
        op(*kernels, seen.data());
        EXPECT_TRUE(same_bits(expected, seen)) << what << " " << to_string(kernels->isa) << " size " << size;
      };
      compare("rms_norm",
              [&](const Kernels& k, float* to) { k.rms_norm(a.data(), b.data(), size, 1e-6f, to); });
      compare("add", [&](const Kernels& k, float* to) { k.add(a.data(), b.data(), size, to); });
      compare("silu", [&](const Kernels& k, float* to) { k.silu_multiply(a.data(), b.data(), size, to); });
      compare("gelu",
              [&](const Kernels& k, float* to) { k.gelu_tanh_multiply(a.data(), b.data(), size, to); });
      compare("sigmoid",
              [&](const Kernels& k, float* to) { k.sigmoid_multiply(a.data(), b.data(), size, to); });
      compare("clamped_swiglu", [&](const Kernels& k, float* to) {
        k.clamped_swiglu(a.data(), b.data(), 1.702f, 1.5f, size, to);
      });
      compare("scale", [&](const Kernels& k, float* to) { k.scale(a.data(), 0.3f, size, to); });
      compare("softcap", [&](const Kernels& k, float* to) { k.softcap(a.data(), 2.5f, size, to); });
      compare("exponential", [&](const Kernels& k, float* to) { k.exponential(a.data(), size, to); });
    }
  }
}

TEST(Elementwise, ExponentialGivesPortableBitsOverItsRange) {
  std::vector<float> inputs = exponential_inputs(), expected(inputs.size()), seen(inputs.size());
  reference_kernels().exponential(inputs.data(), inputs.size(), expected.data());
  for (const Kernels* kernels : fast_kernels()) {
    kernels->exponential(inputs.data(), inputs.size(), seen.data());
    EXPECT_TRUE(same_bits(expected, seen)) << to_string(kernels->isa);
  }
}

TEST(Elementwise, HalvesGivePortableBitsForEveryExponent) {
  Random random(12);
  std::vector<float> inputs;
  for (int i = 0; i < 100'000; ++i) {
    auto bits = static_cast<uint32_t>(random());
    if ((bits & 0x7f800000u) == 0x7f800000u) bits &= 0xff800000u;  // infinities, but no NaN
    inputs.push_back(std::bit_cast<float>(bits));
  }
  for (uint32_t half = 0; half < 0x7c00; ++half) {  // ties
    float low = formats::f16_to_f32(static_cast<uint16_t>(half)),
          high = formats::f16_to_f32(static_cast<uint16_t>(half + 1));
    if (std::isfinite(high)) inputs.push_back((low + high) / 2);
  }
  std::vector<uint16_t> expected(inputs.size()), seen(inputs.size());
  reference_kernels().to_f16(inputs.data(), inputs.size(), expected.data());
  for (const Kernels* kernels : fast_kernels()) {
    kernels->to_f16(inputs.data(), inputs.size(), seen.data());
    EXPECT_EQ(expected, seen) << to_string(kernels->isa);
  }
}

TEST(Elementwise, RopeGivesPortableBits) {
  Random random(13);
  for (const Kernels* kernels : fast_kernels()) {
    for (uint32_t pairs : {1u, 5u, 8u, 16u, 20u, 32u, 64u}) {
      std::vector<float> head = normal_values(2 * pairs, random), c = normal_values(pairs, random),
                         s = normal_values(pairs, random);
      for (auto rope : {&Kernels::rope_halves, &Kernels::rope_interleaved}) {
        std::vector<float> expected = head, seen = head;
        (reference_kernels().*rope)(expected.data(), c.data(), s.data(), pairs);
        (kernels->*rope)(seen.data(), c.data(), s.data(), pairs);
        EXPECT_TRUE(same_bits(expected, seen)) << to_string(kernels->isa) << " pairs " << pairs;
      }
    }
  }
}

TEST(Elementwise, AgreesWithDoubleArithmetic) {
  Random random(14);
  uint32_t size = 100;
  std::vector<float> a = normal_values(size, random), b = normal_values(size, random), seen(size);
  double squares = 0;
  for (float value : a) squares += double{value} * value;
  double scale = 1 / std::sqrt(squares / size + 1e-5);
  reference_kernels().rms_norm(a.data(), b.data(), size, 1e-5f, seen.data());
  for (uint32_t i = 0; i < size; ++i) EXPECT_NEAR(seen[i], a[i] * scale * b[i], 1e-6);
  reference_kernels().silu_multiply(a.data(), b.data(), size, seen.data());
  for (uint32_t i = 0; i < size; ++i) EXPECT_NEAR(seen[i], a[i] / (1 + std::exp(-double{a[i]})) * b[i], 1e-6);
  reference_kernels().gelu_tanh_multiply(a.data(), b.data(), size, seen.data());
  for (uint32_t i = 0; i < size; ++i) {
    double x = a[i], u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
    EXPECT_NEAR(seen[i], 0.5 * x * (1 + std::tanh(u)) * b[i], 1e-6);
  }
}

TEST(Elementwise, GatesAgreeWithDoubleArithmetic) {
  Random random(16);
  uint32_t size = 1000;
  std::vector<float> a = normal_values(size, random), b = normal_values(size, random), seen(size);
  for (float& value : a) value *= 5;
  for (float& value : b) value *= 5;
  auto logistic = [](double x) { return 1 / (1 + std::exp(-x)); };
  reference_kernels().sigmoid_multiply(a.data(), b.data(), size, seen.data());
  for (uint32_t i = 0; i < size; ++i) ASSERT_NEAR(seen[i], logistic(a[i]) * b[i], 4e-6);
  int clamped = 0;
  reference_kernels().clamped_swiglu(a.data(), b.data(), 1.702f, 7.0f, size, seen.data());
  for (uint32_t i = 0; i < size; ++i) {
    double g = std::min(double{a[i]}, 7.0), u = std::clamp(double{b[i]}, -7.0, 7.0);
    ASSERT_NEAR(seen[i], (u + 1) * g * logistic(1.702f * g), 2e-5);
    clamped += std::abs(a[i]) > 7 || std::abs(b[i]) > 7;
  }
  EXPECT_GT(clamped, 10);
  reference_kernels().scale(a.data(), 0.7f, size, seen.data());
  for (uint32_t i = 0; i < size; ++i) ASSERT_EQ(seen[i], a[i] * 0.7f);
}

TEST(Softcap, IsWithinAFewUnitsInTheLastPlaceEvenNearZero) {
  for (float cap : {1.0f, 30.0f, 50.0f}) {
    std::vector<float> inputs;
    for (int i = -100'000; i <= 100'000; ++i) inputs.push_back(static_cast<float>(i) * 12e-5f * cap);
    for (int i = -120; i < 4; ++i) inputs.push_back(0.7f * std::ldexp(cap, i));
    std::vector<float> seen(inputs.size());
    reference_kernels().softcap(inputs.data(), cap, inputs.size(), seen.data());
    double worst = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      double exact = cap * std::tanh(double{inputs[i]} / cap);
      worst = std::max(worst, units_in_the_last_place(seen[i], exact));
    }
    EXPECT_LT(worst, 4.0) << cap;
    EXPECT_GT(worst, 0.4) << cap;
  }
}

TEST(Softcap, KeepsSignsZerosAndNaN) {
  float inputs[] = {0.0f, -0.0f, INFINITY, -INFINITY, 1e30f, -1e30f, NAN}, seen[7];
  reference_kernels().softcap(inputs, 30.0f, 7, seen);
  EXPECT_EQ(seen[0], 0.0f);
  EXPECT_TRUE(std::signbit(seen[1]));
  for (int i : {2, 4}) EXPECT_EQ(seen[i], 30.0f);
  for (int i : {3, 5}) EXPECT_EQ(seen[i], -30.0f);
  EXPECT_TRUE(std::isnan(seen[6]));
}

TEST(Rope, RotatesHalvesAndNeighbours) {
  float halves[4] = {1, 2, 3, 4}, neighbours[4] = {1, 2, 3, 4};
  float cosines[2] = {0.0f, 1.0f}, sines[2] = {1.0f, 0.0f};
  reference_kernels().rope_halves(halves, cosines, sines, 2);
  reference_kernels().rope_interleaved(neighbours, cosines, sines, 2);
  EXPECT_EQ(std::vector<float>(halves, halves + 4), (std::vector<float>{-3, 2, 1, 4}));
  EXPECT_EQ(std::vector<float>(neighbours, neighbours + 4), (std::vector<float>{-2, 1, 3, 4}));
}

TEST(RopeTable, SineAndCosineAgreeWithTheLibraryOverLongContexts) {
  Random random(15);
  for (int i = 0; i < 200'000; ++i) {
    double angle =
        static_cast<double>(random() >> 11) * 0x1p-53 * std::exp2(static_cast<double>(random() % 22));
    SineCosine seen = sine_cosine(i % 2 == 0 ? angle : -angle);
    double sign = i % 2 == 0 ? 1 : -1;
    ASSERT_NEAR(seen.sine, sign * std::sin(angle), 1e-9) << angle;
    ASSERT_NEAR(seen.cosine, std::cos(angle), 1e-9) << angle;
  }
  EXPECT_EQ(sine_cosine(0).sine, 0.0);
  EXPECT_EQ(sine_cosine(0).cosine, 1.0);
}

TEST(RopeTable, TakesTheLongFrequenciesForSequencesWithLongPrompts) {
  std::vector<float> frequencies = {1.0f, 0.25f}, long_frequencies = {0.5f, 0.125f};
  RopeOp op = {.dimensions = 4,
               .inverse_frequencies = frequencies,
               .long_inverse_frequencies = long_frequencies,
               .long_after_tokens = 100};
  RopeOp long_op = {.dimensions = 4, .inverse_frequencies = long_frequencies};
  std::vector<int32_t> positions = {7, 8, 9, 200, 50, 51};
  SequenceRows sequences[] = {
      {.first_row = 0, .row_count = 3, .context_tokens = 7, .pages = {}, .prompt_tokens = 101},
      {.first_row = 3, .row_count = 1, .context_tokens = 200, .pages = {}, .prompt_tokens = 100},
      {.first_row = 4, .row_count = 2, .context_tokens = 50, .pages = {}, .prompt_tokens = 5000}};
  StepView step = {.token_ids = {}, .positions = positions, .sequences = sequences, .output_rows = {}};
  std::vector<float> usual(24), other(24), seen(24, -7.0f);
  fill_rope_table(op, positions, usual.data(), usual.data() + 12);
  fill_rope_table(long_op, positions, other.data(), other.data() + 12);
  for (uint32_t first : {0u, 2u, 5u}) {  // in pieces, as threads take them
    fill_rope_table(op, step, first, first == 0 ? 2 : first == 2 ? 5 : 6, seen.data(), seen.data() + 12);
  }
  for (size_t half : {0u, 12u}) {
    for (size_t i = 0; i < 12; ++i)
      EXPECT_EQ(seen[half + i], i / 2 == 3 ? usual[half + i] : other[half + i]) << half << " " << i;
  }
}

TEST(RopeTable, HoldsAnglesOfPositionTimesFrequencyTimesTheMagnitude) {
  std::vector<float> frequencies = {1.0f, 0.25f};
  RopeOp op = {.dimensions = 4, .magnitude = 2.0f, .inverse_frequencies = frequencies};
  int32_t positions[] = {0, 3};
  float cosines[4], sines[4];
  fill_rope_table(op, positions, cosines, sines);
  EXPECT_EQ(cosines[0], 2.0f);
  EXPECT_EQ(sines[1], 0.0f);
  EXPECT_FLOAT_EQ(cosines[2], static_cast<float>(2 * std::cos(3.0)));
  EXPECT_FLOAT_EQ(sines[3], static_cast<float>(2 * std::sin(0.75)));
}

}  // namespace
}  // namespace shoal::engine::cpu
