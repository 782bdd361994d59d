#include "formats/checkpoint.h"

#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

#include "base/file.h"
#include "base/limits.h"
#include "formats/made_files.h"

namespace shoal::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kFixtures = SHOAL_SOURCE_DIR "/tests/fixtures";

// Sound as files; what is wrong with them is read_decoder_spec's to find.
const std::set<std::string> kWrongInConfigurationOnly = {
    "head_count_0.gguf",     "head_count_kv_0.gguf", "head_count_negative.gguf", "layers_1e9.gguf",
    "layers_string.gguf",    "vocab_mismatch.gguf",  "missing_tensor.gguf",      "rope_theta_0.gguf",
    "config_wrong_type_dir", "config_heads_0_dir",   "config_layers_1e9_dir",    "config_negative_dir",
    "config_theta_0_dir"};

void expect_clear_message(const Error& error, const std::string& file) {
  EXPECT_GT(error.message.size(), 10u) << file;
  EXPECT_EQ(error.message.find('\n'), std::string::npos) << file << ": " << error.message;
  EXPECT_NE(error.code, ErrorCode::internal) << file << ": " << error.message;
}

TEST(Checkpoint, EveryHostileFixtureIsRefusedAndEveryControlOpens) {
  auto text = read_text_file(kFixtures / "bad/expect.json", limits::kMaxConfigBytes);
  ASSERT_TRUE(text) << text.error().text();
  auto cases = parse_json(*text, "expect.json");
  ASSERT_TRUE(cases) << cases.error().text();
  int refused = 0, opened = 0;
  for (const auto& entry : cases->as_array()) {
    const auto& fields = entry.as_object();
    if (fields.at("command").as_string() != "logits") continue;
    const std::string file(fields.at("file").as_string());
    const auto checkpoint = Checkpoint::open(kFixtures / "bad" / file);
    const auto& accept = fields.at("accept").as_array();
    const bool may_open = kWrongInConfigurationOnly.contains(file) || accept.size() == 2 || accept[0] == "ok";
    const bool may_fail = accept[0] == "error" && !kWrongInConfigurationOnly.contains(file);
    if (checkpoint) {
      ++opened;
      EXPECT_TRUE(may_open) << file << " opened, but: " << std::string_view(fields.at("why").as_string());
    } else {
      ++refused;
      EXPECT_TRUE(may_fail) << file << ": " << checkpoint.error().text();
      expect_clear_message(checkpoint.error(), file);
    }
  }
  EXPECT_GE(refused, 28);
  EXPECT_EQ(opened, 2 + static_cast<int>(kWrongInConfigurationOnly.size()));
}

TEST(Checkpoint, OpensAGgufFileWithItsTensorsAndMetadata) {
  auto checkpoint = Checkpoint::open(kFixtures / "gguf/llama-bf16.gguf");
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  EXPECT_EQ(checkpoint->format(), CheckpointFormat::gguf);
  EXPECT_EQ(checkpoint->config(), nullptr);
  ASSERT_NE(checkpoint->gguf(), nullptr);
  EXPECT_EQ(checkpoint->gguf()->require_string("general.architecture").value(), "llama");
  EXPECT_EQ(checkpoint->tensors().size(), 31u);
  const TensorInfo* key = checkpoint->find("blk.0.attn_k.weight");
  ASSERT_NE(key, nullptr);
  EXPECT_EQ(key->type, TensorType::bf16);
  EXPECT_THAT(key->shape, ElementsAre(64, 128));
  EXPECT_EQ(checkpoint->bytes(*key).size(), 64u * 128 * 2);
  EXPECT_EQ(checkpoint->find("blk.0.attn_k"), nullptr);
}

// Two files of the same weights must give the same bytes: the value of one format checks the offsets of the
// other.
TEST(Checkpoint, GgufAndSafetensorsHoldTheSameBytes) {
  auto gguf = Checkpoint::open(kFixtures / "gguf/llama-bf16.gguf");
  auto safetensors = Checkpoint::open(kFixtures / "models/llama");
  ASSERT_TRUE(gguf) << gguf.error().text();
  ASSERT_TRUE(safetensors) << safetensors.error().text();
  EXPECT_EQ(safetensors->format(), CheckpointFormat::safetensors);
  EXPECT_NE(safetensors->config(), nullptr);
  for (auto [ours, theirs] : {std::pair("token_embd.weight", "model.embed_tokens.weight"),
                              std::pair("blk.2.ffn_down.weight", "model.layers.2.mlp.down_proj.weight")}) {
    const TensorInfo* one = gguf->find(ours);
    const TensorInfo* other = safetensors->find(theirs);
    ASSERT_TRUE(one && other) << ours;
    EXPECT_EQ(one->shape, other->shape) << ours;
    ASSERT_EQ(one->bytes, other->bytes) << ours;
    EXPECT_EQ(std::memcmp(gguf->bytes(*one).data(), safetensors->bytes(*other).data(), one->bytes), 0)
        << ours;
  }
}

TEST(Checkpoint, ReadsSiblingsOfPlainNamesOnly) {
  auto checkpoint = Checkpoint::open(kFixtures / "models/llama");
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  EXPECT_THAT(checkpoint->read_sibling("generation_config.json", 1000).value(), HasSubstr("eos_token_id"));
  EXPECT_EQ(checkpoint->read_sibling("absent.json", 1000).error().code, ErrorCode::not_found);
  EXPECT_EQ(checkpoint->read_sibling("../qwen3/config.json", 1000).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(checkpoint->read_sibling("tokenizer.json", 10).error().code, ErrorCode::limit_exceeded);
}

TEST(Checkpoint, NamesAPathThatIsNotThere) {
  const auto checkpoint = Checkpoint::open(kFixtures / "no such model");
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().code, ErrorCode::not_found);
  EXPECT_THAT(checkpoint.error().message, HasSubstr("no such model"));
}

class Shards : public MadeDirectory {
 protected:
  // A file with one tensor of two floats.
  void write_safetensors(const std::string& file, const std::string& tensor) {
    write(file, ByteView(SafetensorsWriter().tensor(tensor, "F32", {2}, Bytes(8, std::byte{1})).bytes()));
  }
};

TEST_F(Shards, AreOneCheckpoint) {
  write("config.json", "{}");
  write_safetensors("one.safetensors", "a");
  write_safetensors("two.safetensors", "b");
  write("model.safetensors.index.json", R"({"weight_map":{"b":"two.safetensors","a":"one.safetensors"}})");
  auto checkpoint = Checkpoint::open(directory_);
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  EXPECT_EQ(checkpoint->files().size(), 2u);
  EXPECT_EQ(checkpoint->total_bytes(), 16u);
  const TensorInfo* b = checkpoint->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(checkpoint->files()[b->file].filename(), "two.safetensors");
  EXPECT_EQ(checkpoint->bytes(*b)[7], std::byte{1});
}

TEST_F(Shards, MayNotShareATensor) {
  write("config.json", "{}");
  write_safetensors("one.safetensors", "a");
  write_safetensors("two.safetensors", "a");
  write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  EXPECT_FALSE(Checkpoint::open(directory_));
  write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors"}})");
  EXPECT_TRUE(Checkpoint::open(directory_));
}

TEST_F(Shards, MustHoldWhatTheIndexSays) {
  write("config.json", "{}");
  write_safetensors("one.safetensors", "a");
  write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
  const auto checkpoint = Checkpoint::open(directory_);
  ASSERT_FALSE(checkpoint);
  EXPECT_THAT(checkpoint.error().message, HasSubstr("'b' is in 'one.safetensors'"));
}

TEST_F(Shards, MustBePlainNames) {
  write("config.json", "{}");
  for (const char* name : {"..", "/etc/passwd", "a/b.safetensors", "", "..\\\\x", "a\\u0000b"}) {
    write("model.safetensors.index.json", std::string(R"({"weight_map":{"a":")") + name + "\"}}");
    const auto checkpoint = Checkpoint::open(directory_);
    ASSERT_FALSE(checkpoint) << name;
    EXPECT_THAT(checkpoint.error().message, HasSubstr("not a plain file name")) << name;
  }
}

}  // namespace
}  // namespace shoal::formats
