// GGUF models in several files, and directories with more than the model in them.
#include "formats/gguf_parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/checkpoint.h"
#include "formats/made_files.h"

namespace shoal::formats {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kFixtures = SHOAL_SOURCE_DIR "/tests/fixtures";
constexpr uint32_t kU16 = 2, kI32 = 5, kF32Type = 0;

TEST(GgufPartName, IsReadFromTheEndOfTheFileName) {
  const auto part = parse_part_name("a-model-Q4-00002-of-00013.gguf");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->prefix, "a-model-Q4");
  EXPECT_EQ(part->number, 2u);
  EXPECT_EQ(part->count, 13u);
  EXPECT_EQ(part->file_name(1), "a-model-Q4-00001-of-00013.gguf");
  for (const char* name :
       {"model.gguf", "m-00001-of-00002", "m-0001-of-0002.gguf", "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf", "00001-of-00002.gguf", "m-0000a-of-00002.gguf", "m--0001-of-00002.gguf"}) {
    EXPECT_FALSE(parse_part_name(name)) << name;
  }
}

class SplitGguf : public MadeDirectory {
 protected:
  struct Part {
    std::vector<TensorInfo> tensors;
    int32_t number;
    uint16_t count;
    int32_t announced;
  };

  // A part in the form that llama-gguf-split writes; the first also has the metadata that the test looks for.
  static Bytes part_bytes(const Checkpoint& whole, const Part& part) {
    GgufWriter writer;
    if (part.number == 0) writer.text("general.architecture", "llama");
    writer.number("split.no", kU16, static_cast<uint16_t>(part.number));
    writer.number("split.count", kU16, part.count).number("split.tensors.count", kI32, part.announced);
    Bytes data;
    for (const auto& tensor : part.tensors) {
      const uint32_t type = tensor.type == TensorType::f32 ? kF32Type : 30;
      writer.tensor(tensor.name, {tensor.shape.rbegin(), tensor.shape.rend()}, type, data.size());
      const ByteView bytes = whole.bytes(tensor);
      data.insert(data.end(), bytes.begin(), bytes.end());
      data.resize((data.size() + 31) / 32 * 32);
    }
    return writer.finish_with(data);
  }

  // The fixture in three parts of which the first has no tensors.
  void SetUp() override {
    MadeDirectory::SetUp();
    auto whole = Checkpoint::open(kFixtures / "gguf/llama-bf16.gguf");
    ASSERT_TRUE(whole) << whole.error().text();
    whole_.emplace(*std::move(whole));
    const auto& tensors = whole_->tensors();
    const auto middle = tensors.begin() + 10;
    const auto announced = static_cast<int32_t>(tensors.size());
    parts_ = {{{}, 0, 3, announced},
              {{tensors.begin(), middle}, 1, 3, announced},
              {{middle, tensors.end()}, 2, 3, announced}};
    for (uint32_t i = 0; i < 3; ++i) write_part(i);
  }
  void write_part(uint32_t index) { write(name(index), ByteView(part_bytes(*whole_, parts_[index]))); }
  static std::string name(uint32_t index) { return fmt::format("m-{:05}-of-00003.gguf", index + 1); }

  void expect_refused(std::string_view fault) {
    const auto checkpoint = Checkpoint::open(directory_);
    ASSERT_FALSE(checkpoint) << fault;
    EXPECT_THAT(checkpoint.error().message, HasSubstr(fault));
  }

  std::optional<Checkpoint> whole_;
  std::vector<Part> parts_;
};

TEST_F(SplitGguf, OpensAsOneFromItsDirectoryAndFromAnyPart) {
  for (const auto& path : {directory_, directory_ / name(0), directory_ / name(1), directory_ / name(2)}) {
    const auto checkpoint = Checkpoint::open(path);
    ASSERT_TRUE(checkpoint) << checkpoint.error().text();
    EXPECT_EQ(checkpoint->files().size(), 3u);
    EXPECT_EQ(checkpoint->path(), path);
    EXPECT_EQ(checkpoint->gguf()->require_string("general.architecture").value(), "llama");
    ASSERT_EQ(checkpoint->tensors().size(), whole_->tensors().size());
    EXPECT_EQ(checkpoint->total_bytes(), whole_->total_bytes());
    for (const auto& tensor : whole_->tensors()) {
      const TensorInfo* found = checkpoint->find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      EXPECT_EQ(found->shape, tensor.shape);
      EXPECT_TRUE(std::ranges::equal(checkpoint->bytes(*found), whole_->bytes(tensor))) << tensor.name;
    }
  }
}

TEST_F(SplitGguf, NamesThePartThatIsMissing) {
  std::filesystem::remove(directory_ / name(1));
  expect_refused("'m-00002-of-00003.gguf' is missing");
  EXPECT_EQ(Checkpoint::open(directory_).error().code, ErrorCode::not_found);
}

TEST_F(SplitGguf, NamesTheFirstPartWhenThatIsMissing) {
  std::filesystem::remove(directory_ / name(0));
  for (const auto& path : {directory_, directory_ / name(2)}) {
    const auto checkpoint = Checkpoint::open(path);
    ASSERT_FALSE(checkpoint);
    EXPECT_EQ(checkpoint.error().code, ErrorCode::not_found);
    EXPECT_THAT(checkpoint.error().message, HasSubstr("m-00001-of-00003.gguf"));
  }
}

TEST_F(SplitGguf, RefusesPartsThatDoNotBelongTogether) {
  const auto with = [&](uint32_t index, auto change, std::string_view fault) {
    const Part kept = parts_[index];
    change(parts_[index]);
    write_part(index);
    expect_refused(fault);
    parts_[index] = kept;
    write_part(index);
  };
  with(1, [](Part& part) { part.number = 2; }, "part 2 of 3: 'split.no' is 2, must be 1");
  with(2, [](Part& part) { part.count = 4; }, "part 3 of 3: 'split.count' is 4, must be 3");
  with(0, [](Part& part) { part.count = 2; }, "is one of 2 parts, but its name");
  with(
      0, [](Part& part) { part.announced = 5; },
      "'split.tensors.count' is 5, but the 3 parts hold 31 tensors");
  with(0, [](Part& part) { part.count = 0xffff; }, "'split.count' is 65535");
  parts_[0].announced += 10;
  write_part(0);
  with(
      2,
      [&](Part& part) {
        part.tensors.insert(part.tensors.end(), parts_[1].tensors.begin(), parts_[1].tensors.end());
      },
      "appears twice");
}

TEST_F(SplitGguf, IsNotHiddenByAProjectorBesideIt) {
  const Bytes projector = GgufWriter().text("general.architecture", "clip").finish(0);
  write("mmproj-model-f16.gguf", ByteView(projector));
  write("vision.gguf", ByteView(projector));
  const auto checkpoint = Checkpoint::open(directory_);
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  EXPECT_EQ(checkpoint->files().size(), 3u);
}

using GgufDirectory = MadeDirectory;

TEST_F(GgufDirectory, OpensItsOnlyGgufFileAndAsksWhichOfSeveral) {
  EXPECT_EQ(Checkpoint::open(directory_).error().code, ErrorCode::not_found);
  std::filesystem::copy(kFixtures / "bad/good.gguf", directory_ / "a.gguf");
  EXPECT_TRUE(Checkpoint::open(directory_));
  write("a-mmproj.gguf", std::string_view("not even a GGUF"));
  EXPECT_TRUE(Checkpoint::open(directory_));
  std::filesystem::copy(kFixtures / "bad/good.gguf", directory_ / "b.gguf");
  const auto checkpoint = Checkpoint::open(directory_);
  ASSERT_FALSE(checkpoint);
  EXPECT_THAT(checkpoint.error().message, HasSubstr("holds 3 .gguf files"));
  EXPECT_TRUE(Checkpoint::open(directory_ / "b.gguf"));
}

}  // namespace
}  // namespace shoal::formats
