// Quantised weights of safetensors checkpoints: which tensors belong together, and what they are worth.
#include "formats/join_parts.h"

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/made_files.h"
#include "formats/tensor_rows.h"

namespace shoal::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

const std::filesystem::path kFixtures = SHOAL_SOURCE_DIR "/tests/fixtures";

class JoinedCheckpoint : public MadeDirectory {
 protected:
  Result<Checkpoint> open(std::string_view config, const SafetensorsWriter& writer) {
    write("config.json", config);
    write("model.safetensors", ByteView(writer.bytes()));
    return Checkpoint::open(directory_);
  }
  void expect_refused(std::string_view config, const SafetensorsWriter& writer, std::string_view fault) {
    const auto checkpoint = open(config, writer);
    ASSERT_FALSE(checkpoint) << "expected: " << fault;
    EXPECT_THAT(checkpoint.error().message, HasSubstr(fault));
    EXPECT_TRUE(checkpoint.error().code == ErrorCode::malformed ||
                checkpoint.error().code == ErrorCode::unsupported)
        << to_string(checkpoint.error().code);
  }
};

std::vector<float> all_values(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo* tensor = checkpoint.find(name);
  if (!tensor) return {};
  size_t count = 1;
  for (const uint64_t dimension : tensor->shape) count *= dimension;
  std::vector<float> values(count);
  const auto done = dequantise_rows(checkpoint, *tensor, 0, values);
  EXPECT_TRUE(done) << done.error().text();
  return values;
}

constexpr std::string_view kFp8 =
    R"({"quantization_config":{"quant_method":"fp8","fmt":"e4m3","weight_block_size":[2,3]}})";
constexpr std::string_view kMxfp4 = R"({"quantization_config":{"quant_method":"mxfp4"}})";
constexpr std::string_view kMlx =
    R"({"quantization":{"group_size":32,"bits":4,"m.eight":{"group_size":32,"bits":8},)"
    R"("m.fp4":{"mode":"mxfp4","bits":4,"group_size":32},"m.plain":false}})";

TEST_F(JoinedCheckpoint, MultipliesFp8BlocksByTheirScales) {
  // 3 x 4 in blocks of 2 x 3: four blocks, three of them cut by the edges. 0x38 is 1, 0x40 is 2, 0xb8 is -1.
  SafetensorsWriter writer;
  writer
      .values<uint8_t>("w.weight", "F8_E4M3", {3, 4},
                       {0x38, 0x40, 0xb8, 0x38, 0x38, 0x38, 0x38, 0x40, 0x40, 0x38, 0x00, 0x01})
      .values<float>("w.weight_scale_inv", "F32", {2, 2}, {1, 10, 100, 1000})
      .values<float>("n", "F32", {1}, {7});
  const auto checkpoint = open(kFp8, writer);
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  ASSERT_EQ(checkpoint->tensors().size(), 2u);
  const TensorInfo* weight = checkpoint->find("w.weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->type, TensorType::f8_e4m3);
  EXPECT_EQ(weight->group_rows, 2u);
  EXPECT_EQ(weight->group_columns, 3u);
  EXPECT_EQ(checkpoint->find("w.weight_scale_inv"), nullptr);
  EXPECT_EQ(checkpoint->total_bytes(), 12u + 16 + 4);
  EXPECT_THAT(all_values(*checkpoint, "w.weight"),
              ElementsAre(1, 2, -1, 10, 1, 1, 1, 20, 200, 100, 0, 1000 * 0x1p-9f));
}

TEST_F(JoinedCheckpoint, GivesEachExpertOfFp8ItsOwnBlocks) {
  SafetensorsWriter writer;
  writer.filled("e.up", "F8_E4M3", {2, 3, 2}, 12)
      .values<uint16_t>("e.up_scale_inv", "BF16", {2, 2, 1}, {0x3f80, 0x4000, 0x4040, 0x4080});
  const auto checkpoint = open(kFp8, writer);
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  EXPECT_THAT(all_values(*checkpoint, "e.up"), ElementsAre(1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4));
  float row[2];
  ASSERT_TRUE(dequantise_rows(*checkpoint, *checkpoint->find("e.up"), 5, row));
  EXPECT_THAT(row, ElementsAre(4, 4));
  EXPECT_FALSE(dequantise_rows(*checkpoint, *checkpoint->find("e.up"), 6, row));
  EXPECT_FALSE(dequantise_rows(*checkpoint, *checkpoint->find("e.up"), 0, std::span(row, 1)));
}

TEST_F(JoinedCheckpoint, RefusesFp8PartsThatDoNotFit) {
  const auto weight = [](std::string_view dtype, std::vector<uint64_t> shape, size_t bytes) {
    return SafetensorsWriter().filled("w", "F8_E4M3", {3, 4}, 12).filled("w_scale_inv", dtype, shape, bytes);
  };
  expect_refused(kFp8, weight("F32", {2, 1}, 8), "must be F32 or BF16 [2, 2]");
  expect_refused(kFp8, weight("F32", {4}, 16), "must be F32 or BF16 [2, 2]");
  expect_refused(kFp8, weight("F16", {2, 2}, 8), "must be F32 or BF16 [2, 2]");
  expect_refused(kFp8, SafetensorsWriter().filled("w", "F8_E4M3", {3, 4}, 12),
                 "partner 'w_scale_inv' is missing");
  expect_refused(kFp8, SafetensorsWriter().filled("w_scale_inv", "F32", {1, 1}, 4), "are not there");
  expect_refused(kFp8, SafetensorsWriter().filled("w", "F8_E4M3", {4}, 4), "must be matrices");
  expect_refused("{}", weight("F32", {2, 2}, 16), "'F8_E4M3' are not supported");
  expect_refused(kFp8, SafetensorsWriter().filled("w", "U8", {4}, 4), "'U8' are not supported");
}

TEST_F(JoinedCheckpoint, ReadsMxfp4WithTheEvenValueInTheLowNibble) {
  std::vector<uint8_t> blocks(2 * 2 * 16, 0);
  blocks[0] = 0x72;        // row 0: values 0 and 1
  blocks[16 + 15] = 0x9f;  // row 0, second block: its last two values
  blocks[32] = 0x01;       // row 1
  SafetensorsWriter writer;
  writer.values("e.up_blocks", "U8", {1, 2, 2, 16}, blocks)
      .values<uint8_t>("e.up_scales", "U8", {1, 2, 2}, {127, 128, 126, 255});
  const auto checkpoint = open(kMxfp4, writer);
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  ASSERT_EQ(checkpoint->tensors().size(), 1u);
  EXPECT_EQ(checkpoint->tensors()[0].type, TensorType::mxfp4_pairs);
  EXPECT_THAT(checkpoint->tensors()[0].shape, ElementsAre(1, 2, 64));
  EXPECT_EQ(checkpoint->tensors()[0].scales->type, TensorType::e8m0);
  const auto values = all_values(*checkpoint, "e.up");
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[1], 6.0f);
  EXPECT_EQ(values[62], 2 * -6.0f);
  EXPECT_EQ(values[63], 2 * -0.5f);
  EXPECT_EQ(values[64], 0.25f);
  EXPECT_TRUE(std::isnan(values[96]));
}

TEST_F(JoinedCheckpoint, RefusesMxfp4PartsThatDoNotFit) {
  const auto parts = [](std::vector<uint64_t> blocks, size_t block_bytes, std::vector<uint64_t> scales,
                        size_t bytes) {
    return SafetensorsWriter()
        .filled("e_blocks", "U8", blocks, block_bytes)
        .filled("e_scales", "U8", scales, bytes);
  };
  expect_refused(kMxfp4, parts({2, 2, 16}, 64, {2, 1}, 2), "must be U8 [2, 2]");
  expect_refused(kMxfp4, parts({2, 2, 8}, 32, {2, 2}, 4), "columns / 32, 16]");
  expect_refused(kMxfp4, parts({2, 16}, 32, {2}, 2), "columns / 32, 16]");
  expect_refused(kMxfp4, SafetensorsWriter().filled("e_scales", "U8", {2, 2}, 4), "are not there");
  expect_refused(kMxfp4, parts({1, 1, 16}, 16, {1, 1}, 1).filled("e", "F32", {1}, 4), "'e' appears twice");
  expect_refused("{}", parts({1, 1, 16}, 16, {1, 1}, 1), "'U8' are not supported");
}

// 64 bytes that count up: nibbles of a row of 128, or bytes of a row of 64.
std::vector<uint8_t> counting_bytes() {
  std::vector<uint8_t> bytes(64);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37);
  return bytes;
}

TEST_F(JoinedCheckpoint, ScalesAndShiftsMlxGroupsWithBitsOfTheirModule) {
  const auto bytes = counting_bytes();
  SafetensorsWriter writer;
  writer.values("m.four.weight", "U32", {1, 2, 8}, bytes)
      .values<float>("m.four.scales", "F32", {1, 2, 2}, {1, 2, 3, 4})
      .values<float>("m.four.biases", "F32", {1, 2, 2}, {-8, 0, 100, 0.5f})
      .values("m.eight.weight", "U32", {2, 8}, bytes)
      .values<uint16_t>("m.eight.scales", "F16", {2, 1}, {0x3c00, 0x4000})
      .values<uint16_t>("m.eight.biases", "F16", {2, 1}, {0x0000, 0xbc00})
      .values<float>("m.plain.weight", "F32", {1}, {5});
  const auto checkpoint = open(kMlx, writer);
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  ASSERT_EQ(checkpoint->tensors().size(), 3u);
  const TensorInfo* four = checkpoint->find("m.four.weight");
  ASSERT_NE(four, nullptr);
  EXPECT_EQ(four->type, TensorType::affine4);
  EXPECT_THAT(four->shape, ElementsAre(1, 2, 64));
  EXPECT_EQ(four->group_columns, 32u);
  std::vector<float> expected;
  const float scales[4] = {1, 2, 3, 4}, biases[4] = {-8, 0, 100, 0.5f};
  for (size_t i = 0; i < 128; ++i) {
    const int quant = i % 2 == 0 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4;
    expected.push_back(scales[i / 32] * static_cast<float>(quant) + biases[i / 32]);
  }
  EXPECT_THAT(all_values(*checkpoint, "m.four.weight"), ElementsAreArray(expected));
  expected.clear();
  for (size_t i = 0; i < 64; ++i) expected.push_back(i < 32 ? bytes[i] : 2.0f * bytes[i] - 1);
  EXPECT_EQ(checkpoint->find("m.eight.weight")->type, TensorType::affine8);
  EXPECT_THAT(all_values(*checkpoint, "m.eight.weight"), ElementsAreArray(expected));
}

TEST_F(JoinedCheckpoint, ReadsMlxsMxfp4) {
  SafetensorsWriter writer;
  writer.values("m.fp4.weight", "U32", {4, 4}, counting_bytes()).filled("m.fp4.scales", "U8", {4, 1}, 4);
  const auto checkpoint = open(kMlx, writer);
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  EXPECT_EQ(checkpoint->tensors()[0].type, TensorType::mxfp4_pairs);
  EXPECT_THAT(checkpoint->tensors()[0].shape, ElementsAre(4, 32));
  const auto values = all_values(*checkpoint, "m.fp4.weight");
  EXPECT_EQ(values[2], std::ldexp(3.0f, 0x38 - 127)) << "byte 37 holds 5, then 2";
  EXPECT_EQ(values[3], std::ldexp(1.0f, 0x38 - 127));
}

TEST_F(JoinedCheckpoint, NamesModuleFieldAndValueOfMlxQuantisationsItCannotUse) {
  SafetensorsWriter writer;
  writer.filled("m.a.weight", "U32", {1, 8}, 32)
      .filled("m.a.scales", "F32", {1, 2}, 8)
      .filled("m.a.biases", "F32", {1, 2}, 8);
  const auto refused = [&](const std::string& fields, std::string_view fault) {
    expect_refused(R"({"quantization":{"group_size":32,"bits":4,"m.a":)" + fields + "}}", writer, fault);
    expect_refused(R"({"quantization":{"group_size":32,"bits":4,"m.a":)" + fields + "}}", writer, "m.a");
  };
  refused(R"({"bits":3,"group_size":32})", "'bits' of its quantisation in config.json is 3");
  refused(R"({"bits":6,"group_size":32})", "is 6, only 4 and 8");
  refused(R"({"bits":4,"group_size":16})", "'group_size' of its quantisation in config.json is 16");
  refused(R"({"bits":4,"group_size":16,"mode":"nvfp4"})",
          "'mode' of its quantisation in config.json is 'nvfp4'");
  refused(R"({"bits":8,"group_size":32,"mode":"mxfp8"})", "'mxfp8'");
  refused(R"({"bits":4})", "must be F16 or BF16 or F32 [1, 1]");
  refused(R"({"bits":8,"group_size":32})", "[1, 1]");
  refused("false", "not quantised");
  refused(R"({"bits":"4"})", "'bits'");
  expect_refused(R"({"quantization":{"group_size":32,"bits":2}})", writer, "'m.a.weight'");
}

TEST_F(JoinedCheckpoint, RefusesMlxPartsThatDoNotFit) {
  const auto parts = [](std::string_view scales, std::string_view biases, std::vector<uint64_t> shape) {
    const auto bytes = [&](std::string_view dtype) { return shape[0] * shape[1] * (dtype == "F32" ? 4 : 2); };
    return SafetensorsWriter()
        .filled("m.weight", "U32", {2, 4}, 32)
        .filled("m.scales", scales, shape, bytes(scales))
        .filled("m.biases", biases, shape, bytes(biases));
  };
  EXPECT_TRUE(open(kMlx, parts("BF16", "BF16", {2, 1})));
  expect_refused(kMlx, parts("F16", "BF16", {2, 1}), "'m.biases' (BF16 [2, 1]) must be F16 [2, 1]");
  expect_refused(kMlx, parts("F16", "F16", {1, 2}), "[2, 1]");
  expect_refused(kMlx, parts("U16", "U16", {2, 1}), "must be F16 or BF16 or F32");
  expect_refused(kMlx, SafetensorsWriter().filled("m.weight", "U32", {2, 3}, 24), "not whole groups");
  expect_refused(kMlx, SafetensorsWriter().filled("m.scales", "F32", {1}, 4), "are not there");
  expect_refused(kMlx, SafetensorsWriter().filled("m.weight", "U32", {4}, 16), "matrices");
  expect_refused("{}", parts("BF16", "BF16", {2, 1}), "'U32' are not supported");
}

TEST_F(JoinedCheckpoint, NamesQuantisationMethodsItDoesNotKnow) {
  SafetensorsWriter writer;
  writer.filled("w", "F32", {1}, 4);
  for (const char* method : {"gptq", "awq", "bitsandbytes", "compressed-tensors", "modelopt", "quark"}) {
    const std::string fields = fmt::format(R"({{"quant_method":"{}","bits":4,"group_size":128}})", method);
    expect_refused(R"({"quantization_config":)" + fields + "}", writer,
                   fmt::format("'{}' is not supported", method));
    expect_refused(R"({"text_config":{"quantization_config":)" + fields + "}}", writer, method);
  }
  const auto refused = [&](const std::string& fields, std::string_view fault) {
    expect_refused(R"({"quantization_config":)" + fields + "}", writer, fault);
  };
  refused(R"({"quant_method":"fp8"})", "without 'weight_block_size'");
  refused(R"({"quant_method":"fp8","weight_block_size":null})", "without 'weight_block_size'");
  refused(R"({"quant_method":"fp8","weight_block_size":[128]})", "has 1 numbers");
  refused(R"({"quant_method":"fp8","weight_block_size":[128,0]})", "two integers from 1");
  refused(R"({"quant_method":"fp8","weight_block_size":[128,"128"]})", "two integers from 1");
  refused(R"({"quant_method":"fp8","weight_block_size":[128,9e18]})", "two integers from 1");
  refused(R"({"quant_method":"fp8","fmt":"e5m2","weight_block_size":[128,128]})", "'e5m2'");
  refused(R"({"quant_method":7})", "'quant_method'");
  refused("{}", "no 'quant_method'");
  refused("[]", "'quantization_config'");
}

// The same weights in gpt-oss's own form and in ggml's.
TEST(JoinedFixtures, Mxfp4OfSafetensorsAndOfGgufAreTheSameValues) {
  const auto pairs = Checkpoint::open(kFixtures / "models/gpt_oss_mxfp4");
  const auto blocks = Checkpoint::open(kFixtures / "gguf/gpt_oss_mxfp4-mxfp4.gguf");
  ASSERT_TRUE(pairs) << pairs.error().text();
  ASSERT_TRUE(blocks) << blocks.error().text();
  const auto both = all_values(*pairs, "model.layers.1.mlp.experts.gate_up_proj");
  const auto gate = all_values(*blocks, "blk.1.ffn_gate_exps.weight");
  const auto up = all_values(*blocks, "blk.1.ffn_up_exps.weight");
  ASSERT_EQ(blocks->find("blk.1.ffn_up_exps.weight")->type, TensorType::mxfp4);
  ASSERT_EQ(both.size(), 8u * 128 * 64);
  ASSERT_EQ(gate.size() + up.size(), both.size());
  for (size_t i = 0; i < both.size(); ++i) {
    const size_t row = i / 64, source = row / 2 * 64 + i % 64;
    ASSERT_EQ(both[i], row % 2 == 0 ? gate[source] : up[source]) << i;
  }
}

TEST(JoinedFixtures, OpenWithAsManyTensorsAsTheModelHasWeights) {
  const auto moe = Checkpoint::open(kFixtures / "mlx/mlx_moe-4bit");
  ASSERT_TRUE(moe) << moe.error().text();
  EXPECT_EQ(moe->find("model.layers.1.mlp.gate.weight")->type, TensorType::affine8);
  EXPECT_THAT(moe->find("model.layers.1.mlp.gate.weight")->shape, ElementsAre(8, 128));
  EXPECT_EQ(moe->find("model.layers.1.mlp.switch_mlp.down_proj.weight")->type, TensorType::affine4);
  EXPECT_THAT(moe->find("model.layers.1.mlp.switch_mlp.down_proj.weight")->shape, ElementsAre(8, 128, 64));
  EXPECT_EQ(moe->find("model.layers.1.mlp.gate.scales"), nullptr);
  uint64_t bytes = 0;
  for (const auto& tensor : moe->tensors()) bytes += tensor.stored_bytes();
  EXPECT_EQ(moe->total_bytes(), bytes);
  const auto dense = Checkpoint::open(kFixtures / "mlx/mlx_dense-8bit");
  EXPECT_TRUE(dense) << dense.error().text();
}

}  // namespace
}  // namespace shoal::formats
