// What `shoal show` says, against sums over the model's own tensors.
#include "cli/model_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numeric>

#include "model/decoder_spec.h"

namespace shoal::cli {
namespace {

using ::testing::HasSubstr;

formats::Checkpoint open(const std::string& path) {
  return *formats::Checkpoint::open(std::filesystem::path(SHOAL_SOURCE_DIR) / path);
}

uint64_t number(const JsonObject& object, std::string_view name) {
  return object.at(name).to_number<uint64_t>();
}

TEST(ModelSummary, CountsTheParametersAndBytesOfTheFilesTensors) {
  for (const char* path : {"models/demo/shoal-demo-q8_0.gguf", "tests/fixtures/models/qwen3"}) {
    const formats::Checkpoint checkpoint = open(path);
    const auto summary = model_summary("it", checkpoint);
    ASSERT_TRUE(summary.has_value()) << summary.error().text();
    uint64_t parameters = 0, bytes = 0;
    for (const formats::TensorInfo& tensor : checkpoint.tensors()) {
      parameters +=
          std::accumulate(tensor.shape.begin(), tensor.shape.end(), uint64_t{1}, std::multiplies<>());
      bytes += tensor.stored_bytes();
    }
    EXPECT_EQ(number(*summary, "parameters"), parameters) << path;
    EXPECT_EQ(number(*summary, "active_parameters"), parameters) << path;
    uint64_t by_type = 0;
    for (const Json& type : summary->at("tensor_types").as_array())
      by_type += number(type.as_object(), "bytes");
    EXPECT_EQ(by_type, bytes) << path;
    EXPECT_EQ(number(*summary, "weight_bytes"), bytes) << path;
  }
}

TEST(ModelSummary, WordsFollowTheFacts) {
  const JsonObject summary{
      {"name", "big\x1b[2J"},
      {"architecture", "qwen3_next"},
      {"parameters", 80'000'000'000},
      {"active_parameters", 3'250'000'000},
      {"layers", 48},
      {"mixers", JsonArray{JsonObject{{"kind", "delta_net"},
                                      {"key_heads", 16},
                                      {"value_heads", 32},
                                      {"key_head_size", 128},
                                      {"value_head_size", 128},
                                      {"layers", 36}},
                           JsonObject{{"kind", "sliding_attention"},
                                      {"query_heads", 16},
                                      {"kv_heads", 2},
                                      {"head_size", 256},
                                      {"window", 512},
                                      {"layers", 12}}}},
      {"feed_forwards", JsonArray{JsonObject{{"kind", "mixture"},
                                             {"experts", 512},
                                             {"experts_used", 10},
                                             {"expert_width", 512},
                                             {"shared_width", 512},
                                             {"layers", 48}}}},
      {"hidden_size", 2048},
      {"vocabulary_size", 151936},
      {"context_tokens", 262144},
      {"tied_embedding", false},
      {"tensor_types",
       JsonArray{JsonObject{{"type", "Q4_K"}, {"tensors", 7}, {"bytes", 1 << 20}, {"share", 0.875}}}},
      {"layer_bytes",
       JsonObject{{"minimum", 1 << 20}, {"median", 2 << 20}, {"maximum", 3 << 20}, {"total", 96 << 20}}},
      {"embedding_bytes", 5 << 20},
      {"head_bytes", 6 << 20},
      {"weight_bytes", 107 << 20},
      {"kv_bytes_per_token", JsonObject{{"f32", 4096}, {"f16", 2048}, {"q8", 1088}}},
      {"state_bytes_per_sequence", 75 << 20},
      {"tokenizer", JsonObject{{"error", "no tokenizer.json"}}},
      {"chat_templates", JsonArray{}},
      {"format", "safetensors"},
      {"files",
       JsonArray{JsonObject{{"path", "/m/a"}, {"bytes", 3}}, JsonObject{{"path", "/m/b"}, {"bytes", 4}}}}};
  const std::string text = summary_text(summary);
  for (const char* words :
       {"80.00 B, 3.25 B of them for a token",
        "36 layers of gated delta net: 16 key heads of 128, 32 value heads of 128",
        "12 layers of sliding attention over 512 tokens: 16 heads of 256, 2 of keys and values",
        "48 layers of experts: 10 of 512 used, width 512, and a shared one of 512", "Q4_K 87.5 %",
        "2.0 MiB a layer (1.0 MiB to 3.0 MiB)", "75.0 MiB a sequence", "cannot be used: no tokenizer.json",
        "none", "/m/b"})
    EXPECT_THAT(text, HasSubstr(words));
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << "names are not commands to the terminal";
}

}  // namespace
}  // namespace shoal::cli
