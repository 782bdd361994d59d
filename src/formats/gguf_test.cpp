#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/limits.h"
#include "formats/made_files.h"
#include "formats/mutation.h"

namespace shoal::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Gguf, ReadsValuesOfEveryKindInBothVersions) {
  for (uint32_t version : {2u, 3u}) {
    const int16_t shorts[] = {-1, 7};
    const float floats[] = {0.5f, 2.0f};
    const auto file = GgufWriter()
                          .number("u8", 0, uint8_t{200})
                          .number("i32", 5, int32_t{-5})
                          .number("u64", 10, ~uint64_t{0})
                          .number("f32", 6, 0.25f)
                          .number("flag", 7, uint8_t{1})
                          .array("shorts", 3, 2, std::as_bytes(std::span(shorts)))
                          .array("floats", 6, 2, std::as_bytes(std::span(floats)))
                          .tensor("w", {32, 3}, 8, 0)
                          .finish(3 * 34, version);
    const auto header = parse_gguf(file);
    ASSERT_TRUE(header) << header.error().text();
    EXPECT_EQ(header->version, version);
    const GgufMetadata& metadata = header->metadata;
    EXPECT_EQ(metadata.require_integer("u8", 0, 255).value(), 200);
    EXPECT_EQ(metadata.get_integer("i32", -10, 0).value(), -5);
    EXPECT_EQ(metadata.get_number("f32").value(), 0.25);
    EXPECT_EQ(metadata.get_bool("flag").value(), true);
    EXPECT_THAT(metadata.integers("shorts"), ElementsAre(-1, 7));
    EXPECT_THAT(*metadata.find_numbers("floats"), ElementsAre(0.5, 2.0));
    ASSERT_EQ(header->tensors.size(), 1u);
    EXPECT_THAT(header->tensors[0].shape, ElementsAre(3, 32)) << "outermost first";
    EXPECT_EQ(header->tensors[0].type, TensorType::q8_0);
    EXPECT_EQ(header->tensors[0].bytes, 102u);
    EXPECT_EQ(header->tensors[0].offset + 102, file.size());
  }
}

TEST(Gguf, GettersNameTheKeyAndTheValueFound) {
  const auto file = GgufWriter().number("layers", 5, int32_t{-2}).number("huge", 10, ~uint64_t{0}).finish(0);
  const auto header = parse_gguf(file);
  ASSERT_TRUE(header) << header.error().text();
  const GgufMetadata& metadata = header->metadata;
  EXPECT_THAT(metadata.require_integer("layers", 1, 10).error().message,
              HasSubstr("'layers' is -2, but must be an integer from 1 to 10"));
  EXPECT_THAT(metadata.get_integer("huge", 0, INT64_MAX).error().message, HasSubstr("18446744073709551615"));
  EXPECT_THAT(metadata.get_string("layers").error().message, HasSubstr("must be a string"));
  EXPECT_THAT(metadata.require_string("absent").error().message, HasSubstr("'absent' is missing"));
  EXPECT_EQ(metadata.get_bool("absent").value(), std::nullopt);
  EXPECT_EQ(metadata.find_strings("layers"), nullptr);
  EXPECT_THAT(metadata.integers("layers"), IsEmpty());
}

TEST(Gguf, RefusesWhatTheFormatForbids) {
  const uint32_t f32 = 0;
  const std::vector<std::pair<Bytes, std::string>> cases = {
      {GgufWriter().number("a", 0, uint8_t{1}).number("a", 0, uint8_t{1}).finish(0), "key 'a' appears twice"},
      {GgufWriter().number("a", 7, uint8_t{2}).finish(0), "boolean with the value 2"},
      {GgufWriter().number("a", 13, uint8_t{2}).finish(64), "unknown value type 13"},
      {GgufWriter().array("a", 9, 1, {}).finish(64), "array of arrays"},
      {GgufWriter().array("a", 0, uint64_t{1} << 40, {}).finish(64), "1099511627776 array elements"},
      {GgufWriter().array("a", 8, 100, {}).finish(64), "100 array elements announced with only"},
      {GgufWriter().tensor("w", {0}, f32, 0).finish(64), "has a zero"},
      {GgufWriter().tensor("w", {}, f32, 0).finish(64), "0 dimensions"},
      {GgufWriter().tensor("w", {1, 1, 1, 1, 1}, f32, 0).finish(64), "5 dimensions"},
      {GgufWriter().tensor("w", {16}, 12, 0).finish(64), "not whole Q4_K blocks"},
      {GgufWriter().tensor("w", {256}, 19, 0).finish(640), "tensor type IQ1_S is not supported"},
      {GgufWriter().tensor("w", {uint64_t{1} << 33, uint64_t{1} << 31}, f32, 0).finish(64),
       "more values than 64 bits"},
      {GgufWriter().tensor("w", {4}, f32, 16).finish(64), "offset 16 is not a multiple"},
      {GgufWriter().tensor("w", {64}, f32, 0).finish(252), "past the end of the file"},
      {GgufWriter().tensor("w", {4}, f32, ~uint64_t{0} - 31).finish(64), "past the end of the file"},
      {GgufWriter().tensor("v", {16}, f32, 0).tensor("w", {4}, f32, 32).finish(64), "'v' and 'w' overlap"},
      {GgufWriter().tensor("w", {4}, f32, 0).tensor("w", {4}, f32, 32).finish(64), "'w' appears twice"},
      {GgufWriter().tensor("", {4}, f32, 0).finish(64), "empty name"},
      {GgufWriter().number("general.alignment", 4, uint32_t{48}).finish(0), "'general.alignment' is 48"},
      {GgufWriter().number("general.alignment", 4, uint32_t{4}).finish(0), "'general.alignment' is 4"}};
  for (const auto& [file, fault] : cases) {
    const auto header = parse_gguf(file);
    ASSERT_FALSE(header) << fault;
    EXPECT_THAT(header.error().message, HasSubstr(fault));
  }
}

TEST(Gguf, KnowsTheTypesThatItCannotUseByName) {
  const std::pair<uint32_t, const char*> refused[] = {
      {4, "Q4_2"},     {9, "Q8_1"},      {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
      {18, "IQ3_XXS"}, {19, "IQ1_S"},    {21, "IQ3_S"}, {22, "IQ2_S"},   {29, "IQ1_M"},
      {26, "I32"},     {31, "Q4_0_4_4"}, {34, "TQ1_0"}, {35, "TQ2_0"},   {40, "NVFP4"}};
  for (const auto& [number, name] : refused) {
    const auto type = tensor_type_from_ggml(number);
    ASSERT_FALSE(type) << name;
    EXPECT_EQ(type.error().code, ErrorCode::unsupported);
    EXPECT_THAT(type.error().message, HasSubstr(std::string("tensor type ") + name + " is"));
  }
  EXPECT_EQ(tensor_type_from_ggml(13).value(), TensorType::q5_k);
  EXPECT_EQ(tensor_type_from_ggml(39).value(), TensorType::mxfp4);
  EXPECT_EQ(tensor_type_from_ggml(99).error().code, ErrorCode::malformed);
}

TEST(Gguf, MutationsOfARealHeaderAreReadOrRefused) {
  auto original = MappedFile::open(SHOAL_SOURCE_DIR "/tests/fixtures/gguf/llama-bf16.gguf");
  ASSERT_TRUE(original) << original.error().text();
  const auto intact = parse_gguf(original->bytes());
  ASSERT_TRUE(intact) << intact.error().text();
  const size_t header_bytes = intact->tensors.front().offset;
  const size_t kept =
      header_bytes + 4096;  // cut data, so that most mutants are quick; faults of the header come first
  int refused = 0, valid = 0;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const bool whole = seed % 4 == 0;
    const Bytes mutant =
        mutate(original->bytes().first(whole ? original->bytes().size() : kept), header_bytes, seed);
    const auto header = parse_gguf(mutant);
    if (!header) {
      ++refused;
      EXPECT_FALSE(header.error().message.empty());
      EXPECT_EQ(header.error().message.find('\n'), std::string::npos) << header.error().message;
      continue;
    }
    ++valid;
    for (const auto& tensor : header->tensors) {
      ASSERT_LE(tensor.offset, mutant.size()) << "seed " << seed;
      ASSERT_LE(tensor.bytes, mutant.size() - tensor.offset) << "seed " << seed;
    }
  }
  EXPECT_GT(refused, 3000);
  EXPECT_GT(valid, 10) << "some mutations only change a token's text";
}

}  // namespace
}  // namespace shoal::formats
