#include "text/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer.h"

namespace shoal::text {
namespace {

using ::testing::HasSubstr;

formats::GgufMetadata tiny() {
  formats::GgufMetadata metadata;
  metadata.values_["tokenizer.ggml.model"] = "gpt2";
  metadata.values_["tokenizer.ggml.pre"] = "qwen2";
  metadata.values_["tokenizer.ggml.tokens"] = std::vector<std::string>{"a", "b", "ab", "<|end|>", "[PAD4]"};
  metadata.values_["tokenizer.ggml.token_type"] = std::vector<int64_t>{1, 1, 1, 3, 5};
  metadata.values_["tokenizer.ggml.merges"] = std::vector<std::string>{"a b"};
  metadata.values_["tokenizer.ggml.eos_token_id"] = uint64_t{3};
  return metadata;
}

TEST(GgufTokenizer, MergesAndMarksControlTokens) {
  const auto tokenizer = Tokenizer::from_gguf(tiny());
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().text();
  EXPECT_EQ(tokenizer->encode("abba<|end|>"), (std::vector<int32_t>{2, 1, 0, 3}));
  EXPECT_EQ(tokenizer->token(4), std::nullopt) << "padding is no token";
}

TEST(GgufTokenizer, AddsBosAndEosWhenTheHeaderSaysSo) {
  formats::GgufMetadata metadata = tiny();
  metadata.values_["tokenizer.ggml.bos_token_id"] = uint64_t{3};
  metadata.values_["tokenizer.ggml.add_bos_token"] = true;
  metadata.values_["tokenizer.ggml.add_eos_token"] = true;
  const auto tokenizer = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().text();
  EXPECT_EQ(tokenizer->encode("a"), (std::vector<int32_t>{3, 0, 3}));
  EXPECT_EQ(tokenizer->encode("a", {.add_special_tokens = false}), (std::vector<int32_t>{0}));
}

TEST(GgufTokenizer, OverlongSpecialTokensAreRefused) {
  formats::GgufMetadata metadata = tiny();
  metadata.values_["tokenizer.ggml.tokens"] =
      std::vector<std::string>{"a", "b", "ab", std::string(300, '<'), "[PAD4]"};
  const auto refused = Tokenizer::from_gguf(metadata);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::limit_exceeded);
}

TEST(GgufTokenizer, EveryKnownPreTokenizerCompiles) {
  for (const char* name : {"default", "gpt-2", "llama-bpe", "qwen2", "qwen35", "glm4", "gpt-4o", "tekken",
                           "deepseek-v3", "smollm"}) {
    formats::GgufMetadata metadata = tiny();
    metadata.values_["tokenizer.ggml.pre"] = name;
    const auto tokenizer = Tokenizer::from_gguf(metadata);
    ASSERT_TRUE(tokenizer.has_value()) << name << ": " << tokenizer.error().text();
    EXPECT_EQ(tokenizer->encode("ab", {.add_special_tokens = false}), (std::vector<int32_t>{2})) << name;
  }
}

struct Broken {
  const char* key;
  formats::GgufValue value;
  ErrorCode code;
  const char* message;
};

TEST(GgufTokenizer, SaysWhatIsWrong) {
  const std::vector<Broken> cases = {
      {"tokenizer.ggml.pre", "martian", ErrorCode::unsupported, "martian"},
      {"tokenizer.ggml.model", "t5", ErrorCode::unsupported, "t5"},
      {"tokenizer.ggml.model", uint64_t{7}, ErrorCode::malformed, "tokenizer.ggml.model"},
      {"tokenizer.ggml.tokens", std::vector<std::string>{}, ErrorCode::malformed, "tokenizer.ggml.tokens"},
      {"tokenizer.ggml.tokens", std::vector<std::string>{"a", "a", "ab", "b", "c"}, ErrorCode::malformed,
       "twice"},
      {"tokenizer.ggml.token_type", std::vector<int64_t>{1}, ErrorCode::malformed, "1 entries for 5 tokens"},
      {"tokenizer.ggml.merges", std::vector<std::string>{"ab"}, ErrorCode::malformed, "'ab'"},
      {"tokenizer.ggml.merges", std::vector<std::string>{"a c"}, ErrorCode::malformed, "tokenizer.json"},
      {"tokenizer.ggml.eos_token_id", uint64_t{99}, ErrorCode::malformed, "eos_token_id"},
      {"tokenizer.ggml.model", "llama", ErrorCode::malformed, "scores"},
  };
  for (const Broken& broken : cases) {
    formats::GgufMetadata metadata = tiny();
    metadata.values_[broken.key] = broken.value;
    const auto refused = Tokenizer::from_gguf(metadata);
    ASSERT_FALSE(refused.has_value()) << broken.key << " " << broken.message;
    EXPECT_EQ(refused.error().code, broken.code) << refused.error().text();
    EXPECT_THAT(refused.error().message, HasSubstr(broken.message));
  }
}

}  // namespace
}  // namespace shoal::text
