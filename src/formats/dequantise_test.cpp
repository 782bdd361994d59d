#include "formats/dequantise.h"

#include <algorithm>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "formats/safetensors.h"

namespace shoal::formats {
namespace {

using ::testing::HasSubstr;

class QuantVectors : public ::testing::TestWithParam<TensorType> {
 protected:
  void SetUp() override {
    auto file = MappedFile::open(SHOAL_SOURCE_DIR "/tests/fixtures/quant_vectors.safetensors");
    ASSERT_TRUE(file) << file.error().text();
    file_ = std::make_unique<MappedFile>(*std::move(file));
    auto tensors = parse_safetensors(file_->bytes());
    ASSERT_TRUE(tensors) << tensors.error().text();
    tensors_ = *std::move(tensors);
  }

  ByteView bytes_of(const std::string& name) {
    auto found = std::ranges::find(tensors_, name, &SafetensorsTensor::name);
    if (found == tensors_.end()) return {};
    return file_->bytes().subspan(found->offset, found->bytes);
  }

  std::unique_ptr<MappedFile> file_;
  std::vector<SafetensorsTensor> tensors_;
};

TEST_P(QuantVectors, EveryBlockHasExactlyGgmlsValues) {
  const std::string name(to_string(GetParam()));
  const ByteView raw = bytes_of(name + ".raw");
  const ByteView expected = bytes_of(name + ".f32");
  ASSERT_FALSE(raw.empty());
  std::vector<float> values(expected.size() / sizeof(float));
  ASSERT_EQ(values.size(), 64 * type_info(GetParam()).block_values);
  const auto done = dequantise(GetParam(), raw, values);
  ASSERT_TRUE(done) << done.error().text();
  for (size_t i = 0; i < values.size(); ++i) {
    float want;
    std::memcpy(&want, expected.data() + i * sizeof(float), sizeof(float));
    ASSERT_EQ(values[i], want) << name << " value " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, QuantVectors,
                         ::testing::Values(TensorType::f16, TensorType::bf16, TensorType::q8_0,
                                           TensorType::q4_0, TensorType::q4_1, TensorType::q5_0,
                                           TensorType::q5_1, TensorType::q2_k, TensorType::q3_k,
                                           TensorType::q4_k, TensorType::q5_k, TensorType::q6_k,
                                           TensorType::iq4_nl, TensorType::iq4_xs, TensorType::mxfp4),
                         [](const auto& instance) { return std::string(to_string(instance.param)); });

TEST(Dequantise, CopiesFloats) {
  const float stored[3] = {1.5f, -2.0f, 3e-40f};
  float values[3];
  ASSERT_TRUE(dequantise(TensorType::f32, std::as_bytes(std::span(stored)), values));
  EXPECT_THAT(values, ::testing::ElementsAreArray(stored));
}

TEST(Dequantise, RefusesRowsOfAnotherLength) {
  std::vector<std::byte> row(34);
  std::vector<float> values(64);
  const auto done = dequantise(TensorType::q8_0, row, values);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("64 values of Q8_0 take 68 bytes, not 34"));
}

TEST(Dequantise, RefusesTypesWhoseScalesAreElsewhere) {
  std::vector<std::byte> row(4);
  std::vector<float> values(8);
  const auto done = dequantise(TensorType::affine4, row, values);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("scales in another tensor"));
}

TEST(TensorBytes, RefusesPartsOfBlocksAndOverflow) {
  EXPECT_EQ(tensor_bytes(TensorType::q4_k, 3, 512).value(), 3u * 2 * 144);
  EXPECT_EQ(tensor_bytes(TensorType::q4_k, 1, 16).error().code, ErrorCode::malformed);
  EXPECT_EQ(tensor_bytes(TensorType::f32, uint64_t{1} << 33, uint64_t{1} << 31).error().code,
            ErrorCode::malformed);
}

}  // namespace
}  // namespace shoal::formats
