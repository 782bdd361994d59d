// Whole checkpoints with damage in any of their files: opening gives an Error or sound tensors, and takes no
// more memory than twice the files and 64 MiB.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/limits.h"
#include "formats/allocation_gauge.h"
#include "formats/made_files.h"
#include "formats/mutation.h"
#include "formats/tensor_rows.h"

namespace shoal::formats {
namespace {

constexpr size_t kFreeBytes = 64 * limits::kMiB;

struct MadeFile {
  std::string name;
  Bytes content;
  size_t header_bytes;  // where damage is interesting
};
struct MadeModel {
  std::string name;
  std::string open;  // what to open in the directory; empty for the directory itself
  std::vector<MadeFile> files;
};

MadeFile text_file(const std::string& name, std::string_view text) {
  const ByteView bytes = as_bytes(text);
  return {name, Bytes(bytes.begin(), bytes.end()), text.size()};
}
MadeFile weights_file(const std::string& name, const SafetensorsWriter& writer) {
  Bytes bytes = writer.bytes();
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  return {name, std::move(bytes), static_cast<size_t>(header_bytes) + 8};
}

MadeModel fp8_model() {
  SafetensorsWriter one, two;
  one.filled("a.weight", "F8_E4M3", {6, 10}, 60).filled("b.weight_scale_inv", "BF16", {2, 2, 3}, 24);
  two.filled("b.weight", "F8_E4M3", {2, 8, 12}, 192)
      .filled("a.weight_scale_inv", "F32", {2, 3}, 24)
      .filled("a_norm_that_is_not_quantised", "BF16", {4}, 8);
  return {
      "fp8",
      "",
      {text_file("config.json",
                 R"({"quantization_config":{"quant_method":"fp8","fmt":"e4m3","weight_block_size":[4,4]}})"),
       text_file("model.safetensors.index.json",
                 R"({"weight_map":{"a.weight":"1.safetensors","b.weight_scale_inv":"1.safetensors",)"
                 R"("b.weight":"2.safetensors","a.weight_scale_inv":"2.safetensors"}})"),
       weights_file("1.safetensors", one), weights_file("2.safetensors", two)}};
}

MadeModel mxfp4_model() {
  SafetensorsWriter writer;
  writer.filled("e.up_blocks", "U8", {2, 3, 2, 16}, 192)
      .filled("e.up_scales", "U8", {2, 3, 2}, 12)
      .filled("e.down_blocks", "U8", {2, 3, 1, 16}, 96)
      .filled("e.down_scales", "U8", {2, 3, 1}, 6)
      .filled("a_norm_that_is_not_quantised", "F32", {3}, 12);
  return {
      "mxfp4",
      "",
      {text_file(
           "config.json",
           R"({"modules_to_not_convert":["model.layers.*.self_attn"],"quantization_config":{"quant_method":"mxfp4"}})"),
       weights_file("model.safetensors", writer)}};
}

MadeModel mlx_model() {
  SafetensorsWriter writer;
  writer.filled("a.weight", "U32", {2, 3, 8}, 192)
      .filled("a.scales", "BF16", {2, 3, 1}, 12)
      .filled("a.biases", "BF16", {2, 3, 1}, 12)
      .filled("b.weight", "U32", {4, 8}, 128)
      .filled("b.scales", "F16", {4, 1}, 8)
      .filled("b.biases", "F16", {4, 1}, 8)
      .filled("c.weight", "U32", {4, 4}, 64)
      .filled("c.scales", "U8", {4, 1}, 4)
      .filled("n.weight", "F32", {1}, 4);
  return {
      "mlx",
      "",
      {text_file("config.json", R"({"quantization":{"group_size":64,"bits":4,"b":{"group_size":32,"bits":8},)"
                                R"("c":{"group_size":32,"bits":4,"mode":"mxfp4"},"n":false}})"),
       weights_file("model.safetensors", writer)}};
}

MadeModel split_model() {
  MadeModel model{"split", "m-00002-of-00002.gguf", {}};
  for (uint16_t i = 0; i < 2; ++i) {
    GgufWriter writer;
    writer.text("general.architecture", "llama")
        .number("split.no", 2, i)
        .number("split.count", 2, uint16_t{2});
    writer.number("split.tensors.count", 5, int32_t{4});
    const std::string prefix = i == 0 ? "a" : "b";
    writer.tensor(prefix + ".q5", {256, 2}, 13, 0).tensor(prefix + ".iq4", {32, 3}, 20, 352);
    Bytes bytes = writer.finish(512);
    const size_t header_bytes = bytes.size() - 512;
    model.files.push_back({fmt::format("m-{:05}-of-00002.gguf", i + 1), std::move(bytes), header_bytes});
  }
  return model;
}

class Hostile : public MadeDirectory {
 protected:
  size_t write_all(const MadeModel& model) {
    size_t bytes = 0;
    for (const auto& file : model.files) {
      write(file.name, ByteView(file.content));
      bytes += file.content.size();
    }
    return bytes;
  }

  // Whether it opens; fails the test when it does so wrongly.
  bool open_within_bounds(const std::filesystem::path& path, size_t file_bytes, const std::string& what) {
    const AllocationGauge gauge;
    const auto checkpoint = Checkpoint::open(path);
    EXPECT_LE(gauge.peak_bytes(), 2 * file_bytes + kFreeBytes) << what;
    if (checkpoint) {
      expect_sound(*checkpoint, what);
      return true;
    }
    EXPECT_FALSE(checkpoint.error().message.empty()) << what;
    EXPECT_EQ(checkpoint.error().message.find('\n'), std::string::npos) << what << checkpoint.error().message;
    EXPECT_NE(checkpoint.error().code, ErrorCode::internal) << what << checkpoint.error().message;
    return false;
  }

  // Every byte can be read and every row has values.
  static void expect_sound(const Checkpoint& checkpoint, const std::string& what) {
    uint64_t bytes = 0;
    for (const auto& tensor : checkpoint.tensors()) {
      bytes += tensor.stored_bytes();
      uint64_t rows = 1;
      for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
      const uint64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
      ASSERT_LE(columns, 1'000'000u) << what;
      std::vector<float> row(columns);
      for (const uint64_t at : {uint64_t{0}, rows / 2, rows - 1}) {
        const auto done = dequantise_rows(checkpoint, tensor, at, row);
        ASSERT_TRUE(done) << what << ": " << done.error().text();
      }
    }
    EXPECT_EQ(bytes, checkpoint.total_bytes()) << what;
  }
};

class Mutated : public Hostile, public ::testing::WithParamInterface<MadeModel (*)()> {};

TEST_P(Mutated, CheckpointsAreRefusedOrSound) {
  const MadeModel model = GetParam()();
  const size_t intact_bytes = write_all(model);
  const auto path = directory_ / model.open;
  ASSERT_TRUE(open_within_bounds(path, intact_bytes, "intact"));
  int refused = 0, opened = 0;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    const auto& victim = model.files[seed % model.files.size()];
    const Bytes mutant = mutate(victim.content, victim.header_bytes, seed);
    write(victim.name, ByteView(mutant));
    ++(open_within_bounds(path, intact_bytes + mutant.size(), model.name + " seed " + std::to_string(seed))
           ? opened
           : refused);
    if (HasFatalFailure()) return;
    write(victim.name, ByteView(victim.content));
  }
  EXPECT_GT(refused, 300);
  EXPECT_GT(opened, 0) << "some damage changes a name or a value that nobody reads";
}

INSTANTIATE_TEST_SUITE_P(Kinds, Mutated,
                         ::testing::Values(&fp8_model, &mxfp4_model, &mlx_model, &split_model),
                         [](const auto& instance) { return instance.param().name; });

// Files that are as greedy as their format lets them be.
using Greedy = Hostile;

TEST_F(Greedy, TensorTablesOfSafetensorsStayWithinBounds) {
  SafetensorsWriter writer;
  for (uint64_t i = 0; i < 300'000; ++i) writer.filled(fmt::format("{:x}", i), "F16", {1}, 2);
  const Bytes bytes = writer.bytes();
  write("config.json", std::string_view("{}"));
  write("model.safetensors", ByteView(bytes));
  EXPECT_TRUE(open_within_bounds(directory_, bytes.size(), "many tensors"));
}

TEST_F(Greedy, TensorTablesOfGgufStayWithinBounds) {
  GgufWriter writer;
  for (uint64_t i = 0; i < 300'000; ++i) writer.tensor(fmt::format("{:x}", i), {1}, 0, i * 32);
  const Bytes bytes = writer.finish(300'000 * 32);
  write("a.gguf", ByteView(bytes));
  EXPECT_TRUE(open_within_bounds(directory_, bytes.size(), "many tensors"));
}

TEST_F(Greedy, MetadataOfGgufStaysWithinBounds) {
  for (const auto& [type, element_bytes, count] :
       {std::tuple(8u, 8u, 2'600'000u), std::tuple(0u, 1u, 7'900'000u), std::tuple(6u, 4u, 7'900'000u)}) {
    const Bytes elements(size_t{element_bytes} * count);
    const Bytes bytes = GgufWriter().array("greedy", type, count, elements).finish(0);
    write("a.gguf", ByteView(bytes));
    open_within_bounds(directory_, bytes.size(), fmt::format("elements of type {}", type));
  }
  GgufWriter pairs;
  for (uint32_t i = 0; i < 99'999; ++i) pairs.number(fmt::format("{:x}", i), 0, uint8_t{1});
  const Bytes bytes = pairs.finish(0);
  write("a.gguf", ByteView(bytes));
  EXPECT_TRUE(open_within_bounds(directory_, bytes.size(), "many pairs"));
}

TEST_F(Greedy, ConfigurationsStayWithinBounds) {
  const Bytes weights = SafetensorsWriter().filled("w", "F32", {1}, 4).bytes();
  write("model.safetensors", ByteView(weights));
  const auto repeated = [](std::string_view open, std::string_view unit, std::string_view close,
                           size_t size) {
    std::string text(open);
    while (text.size() + unit.size() + close.size() < size) text += unit;
    return text += close;
  };
  for (const size_t size : {size_t{1} << 20, size_t{4} << 20, size_t{15} << 20}) {
    for (const std::string& config :
         {repeated(R"({"a":[)", "0,", "0]}", size), repeated(R"({"a":[)", "[0],", "0]}", size),
          repeated(R"({"a":[)", R"({"a":0},)", "0]}", size)}) {
      write("config.json", std::string_view(config));
      open_within_bounds(directory_, config.size(), config.substr(0, 20) + " " + std::to_string(size));
    }
  }
  write("config.json", std::string_view("{}"));
  std::filesystem::remove(directory_ / "model.safetensors");
  write("1.safetensors", ByteView(weights));
  for (const size_t size : {size_t{1} << 20, size_t{30} << 20}) {
    for (const std::string& index :
         {repeated(R"({"weight_map":{"w":"1.safetensors"},"a":[)", "0,", "0]}", size),
          repeated(R"({"weight_map":{"w":"1.safetensors"},"a":[)", R"({"a":0},)", "0]}", size)}) {
      write("model.safetensors.index.json", std::string_view(index));
      open_within_bounds(directory_, index.size(), "index of " + std::to_string(size));
    }
  }
}

}  // namespace
}  // namespace shoal::formats
