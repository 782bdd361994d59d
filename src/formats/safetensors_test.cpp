#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/limits.h"
#include "formats/mutation.h"

namespace shoal::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A file with this header, padded to 8 bytes, and so much data.
Bytes file_with(std::string header, size_t data_bytes) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  ByteWriter writer;
  writer.write(uint64_t{header.size()});
  writer.append(as_bytes(header));
  Bytes file = writer.take();
  file.resize(file.size() + data_bytes);
  return file;
}

TEST(Safetensors, ReadsTensorsMetadataAndEscapedNames) {
  const auto file = file_with(
      R"({"__metadata__":{"format":"pt","x":"y"},"a\u0062":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"( "s":{"data_offsets":[0,4],"shape":[],"dtype":"F32"}})",
      16);
  const auto tensors = parse_safetensors(file);
  ASSERT_TRUE(tensors) << tensors.error().text();
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ((*tensors)[0].name, "ab");
  EXPECT_EQ((*tensors)[0].dtype, "BF16");
  EXPECT_THAT((*tensors)[0].shape, ElementsAre(2, 3));
  EXPECT_EQ((*tensors)[0].offset, file.size() - 12);
  EXPECT_EQ((*tensors)[0].bytes, 12u);
  EXPECT_EQ((*tensors)[1].name, "s");
  EXPECT_THAT((*tensors)[1].shape, IsEmpty());
}

TEST(Safetensors, RefusesWhatTheFormatForbids) {
  auto one = [](const std::string& fields) { return "{\"w\":{" + fields + "}}"; };
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[]", "not a JSON object"},
      {"", "not a JSON object"},
      {"{\"w\":", "not valid JSON"},
      {"{} {}", "more after its end"},
      {one(R"("dtype":"F32","shape":[2])"), "'data_offsets' must be two numbers"},
      {one(R"("dtype":"F32","data_offsets":[0,8])"), "no 'shape'"},
      {one(R"("shape":[2],"data_offsets":[0,8])"), "no 'dtype'"},
      {one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "run backwards"},
      {one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "does not take the 4 bytes"},
      {one(R"("dtype":"F32","shape":[0],"data_offsets":[0,0])"), "has a zero"},
      {one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"shape":[2])"), "unexpected list 'shape'"},
      {one(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"), "unexpected text"},
      {one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "negative number -2"},
      {one(R"("dtype":"F32","shape":[2.5],"data_offsets":[0,8])"), "not an integer"},
      {one(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"), "list inside a list"},
      {one(R"("dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8])"),
       "more values than 64 bits"},
      {one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])"), "not valid JSON"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])"), "past the end of the file"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[18446744073709551608,18446744073709551612])"),
       "past the end"},
      {one(R"("dtype":"F3","shape":[2],"data_offsets":[0,8])"), "unknown dtype 'F3'"},
      {one(R"("dtype":null,"shape":[2],"data_offsets":[0,8])"), "unexpected null"},
      {R"({"w":[1]})", "a list where an object was expected"},
      {R"({"__metadata__":{"a":1}})", "unexpected number 1"},
      {R"({"w":{"a":{"b":{"c":{"d":1}}}}})", "an object where a value"},
      {R"({"":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "without a name"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "'w' appears twice"},
      {R"({"v":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "'v' and 'w' overlap"}};
  for (const auto& [header, fault] : cases) {
    const auto tensors = parse_safetensors(file_with(header, 8));
    ASSERT_FALSE(tensors) << header;
    EXPECT_THAT(tensors.error().message, HasSubstr(fault)) << header;
  }
}

TEST(Safetensors, OnlyFloatsBecomeWeights) {
  EXPECT_EQ(tensor_type_from_dtype("BF16").value(), TensorType::bf16);
  EXPECT_EQ(tensor_type_from_dtype("F16").value(), TensorType::f16);
  EXPECT_EQ(tensor_type_from_dtype("F32").value(), TensorType::f32);
  for (const char* dtype : {"F64", "U8", "I32", "F8_E4M3"}) {
    const auto type = tensor_type_from_dtype(dtype);
    ASSERT_FALSE(type) << dtype;
    EXPECT_EQ(type.error().code, ErrorCode::unsupported);
    EXPECT_THAT(type.error().message, HasSubstr(dtype));
  }
}

TEST(Safetensors, MutationsOfARealHeaderAreReadOrRefused) {
  auto original = MappedFile::open(SHOAL_SOURCE_DIR "/tests/fixtures/bad/good_dir/model.safetensors");
  ASSERT_TRUE(original) << original.error().text();
  const auto intact = parse_safetensors(original->bytes());
  ASSERT_TRUE(intact) << intact.error().text();
  uint64_t header_bytes;
  std::memcpy(&header_bytes, original->bytes().data(), 8);
  int refused = 0, valid = 0;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const Bytes mutant = mutate(original->bytes(), header_bytes + 8, seed);
    const auto tensors = parse_safetensors(mutant);
    if (!tensors) {
      ++refused;
      EXPECT_FALSE(tensors.error().message.empty());
      EXPECT_EQ(tensors.error().message.find('\n'), std::string::npos) << tensors.error().message;
      continue;
    }
    ++valid;
    for (const auto& tensor : *tensors) {
      ASSERT_LE(tensor.offset, mutant.size()) << "seed " << seed;
      ASSERT_LE(tensor.bytes, mutant.size() - tensor.offset) << "seed " << seed;
    }
  }
  EXPECT_GT(refused, 3000);
  EXPECT_GT(valid, 10) << "some mutations only change a name";
}

}  // namespace
}  // namespace shoal::formats
