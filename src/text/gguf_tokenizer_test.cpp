#include "text/gguf_tokenizer.h"

#include <algorithm>
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

struct Cut {
  const char* pre;
  const char* pieces;  // of kCutText, with "|" between them
};

// Every token is one character or the whole of a piece that some pre-tokenizer makes.
constexpr std::string_view kCutText = "1234 aB's\n\nc";

std::string pieces_of(const char* pre) {
  formats::GgufMetadata metadata;
  std::vector<std::string> tokens;
  std::vector<std::string> merges;
  for (char letter : std::string_view("1234aB'sc")) tokens.emplace_back(1, letter);
  tokens.insert(tokens.end(), {"Ġ", "Ċ"});
  for (const char* merge : {"1 2", "3 4", "12 3", "12 34", "2 34", "Ġ a", "a B", "Ġa B", "ĠaB '", "ĠaB' s",
                            "' s", "B 's", "Ċ Ċ", "s Ċ", "ĊĊ c", "Ċ c"}) {
    merges.emplace_back(merge);
    std::string token = merge;
    token.erase(token.find(' '), 1);
    if (std::ranges::find(tokens, token) == tokens.end()) tokens.push_back(token);
  }
  metadata.values_["tokenizer.ggml.model"] = "gpt2";
  metadata.values_["tokenizer.ggml.pre"] = pre;
  metadata.values_["tokenizer.ggml.tokens"] = tokens;
  metadata.values_["tokenizer.ggml.merges"] = merges;
  const auto tokenizer = Tokenizer::from_gguf(metadata);
  if (!tokenizer.has_value()) return tokenizer.error().text();
  const auto ids = tokenizer->encode(kCutText, {.add_special_tokens = false});
  if (!ids.has_value()) return ids.error().text();
  std::string pieces;
  for (int32_t id : *ids) pieces += (pieces.empty() ? "" : "|") + tokenizer->token(id).value_or("?");
  return pieces;
}

TEST(GgufTokenizer, PreTokenizersCutAsTheModelsDo) {
  const std::vector<Cut> cuts = {
      {"gpt-2", "1234|ĠaB|'s|Ċ|Ċ|c"},     {"default", "123|4|ĠaB|'|s|Ċ|Ċ|c"},
      {"smollm", "1|2|3|4|ĠaB|'s|Ċ|Ċ|c"}, {"llama-bpe", "123|4|ĠaB|'s|ĊĊ|c"},
      {"qwen2", "1|2|3|4|ĠaB|'s|ĊĊ|c"},   {"gpt-4o", "123|4|Ġa|B's|ĊĊ|c"},
      {"tekken", "1|2|3|4|Ġa|B|'s|ĊĊ|c"}, {"deepseek-v3", "123|4|ĠaB|'s|ĊĊ|c"},
      {"tiny_aya", "1|234|Ġa|B's|ĊĊ|c"},  {"deepseek-llm", "1|2|3|4|ĠaB|'|s|Ċ|Ċ|c"},
  };
  for (const Cut& cut : cuts) EXPECT_EQ(pieces_of(cut.pre), cut.pieces) << cut.pre;
}

TEST(GgufTokenizer, EveryNameOfAPreTokenizerOpens) {
  for (const char* name : {"default",
                           "gpt-2",
                           "phi-2",
                           "jina-es",
                           "gigachat",
                           "a.x-4.0",
                           "mellum",
                           "exaone4",
                           "jais",
                           "trillion",
                           "mpt",
                           "olmo",
                           "starcoder",
                           "refact",
                           "smollm",
                           "codeshell",
                           "exaone",
                           "minerva-7b",
                           "mellum2",
                           "command-r",
                           "falcon",
                           "chameleon",
                           "poro-chat",
                           "bloom",
                           "gpt3-finnish",
                           "viking",
                           "superbpe",
                           "llama-bpe",
                           "llama3",
                           "llama-v3",
                           "falcon3",
                           "falcon-h1",
                           "pixtral",
                           "midm-2.0",
                           "lfm2",
                           "dbrx",
                           "smaug-bpe",
                           "glm4",
                           "chatglm-bpe",
                           "qwen2",
                           "deepseek-r1-qwen",
                           "megrez",
                           "stablelm2",
                           "kormo",
                           "hunyuan",
                           "grok-2",
                           "solar-open",
                           "qwen35",
                           "minicpm5",
                           "jais-2",
                           "seed-coder",
                           "ufakzeka",
                           "bailingmoe",
                           "bailingmoe2",
                           "llada-moe",
                           "exaone-moe",
                           "laguna",
                           "gpt-4o",
                           "llama4",
                           "kanana2",
                           "minimax-m2",
                           "tiny_aya",
                           "cohere2moe",
                           "youtu",
                           "tekken",
                           "kimi-k2",
                           "deepseek-v3",
                           "hunyuan-dense",
                           "joyai-llm",
                           "spark2_5",
                           "afmoe",
                           "deepseek-llm",
                           "deepseek-coder",
                           "gemma4",
                           "sarvam-moe"}) {
    formats::GgufMetadata metadata = tiny();
    metadata.values_["tokenizer.ggml.pre"] = name;
    const auto tokenizer = Tokenizer::from_gguf(metadata);
    ASSERT_TRUE(tokenizer.has_value()) << name << ": " << tokenizer.error().text();
    EXPECT_EQ(tokenizer->encode("ab", {.add_special_tokens = false}), (std::vector<int32_t>{2})) << name;
  }
}

TEST(GgufTokenizer, ToolTokensThatLookLikeControlTokensStayInAnswers) {
  formats::GgufMetadata metadata = tiny();
  metadata.values_["tokenizer.ggml.tokens"] =
      std::vector<std::string>{"a", "b", "ab", "<｜tool▁sep｜>", "<|tool_call_begin|>"};
  metadata.values_["tokenizer.ggml.token_type"] = std::vector<int64_t>{1, 1, 1, 3, 3};
  const auto tokenizer = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().text();
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{3, 4}, SpecialTokens::skip),
            "<｜tool▁sep｜><|tool_call_begin|>");
}

// Tokens, kinds and scores of a SentencePiece vocabulary without bytes.
formats::GgufMetadata sentencepiece(const char* model, const std::vector<std::string>& tokens,
                                    const std::vector<int64_t>& kinds, const std::vector<double>& scores) {
  formats::GgufMetadata metadata;
  metadata.values_["tokenizer.ggml.model"] = model;
  metadata.values_["tokenizer.ggml.tokens"] = tokens;
  metadata.values_["tokenizer.ggml.token_type"] = kinds;
  metadata.values_["tokenizer.ggml.scores"] = scores;
  metadata.values_["tokenizer.ggml.bos_token_id"] = uint64_t{1};
  metadata.values_["tokenizer.ggml.eos_token_id"] = uint64_t{2};
  return metadata;
}

TEST(GgufTokenizer, RunsOfSpacesAreFoundInTextWhereTheVocabularyHasAllOfThem) {
  for (const size_t longest : {3, 31}) {
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "▁", "x"};
    std::vector<int64_t> kinds = {2, 3, 3, 1, 1};
    for (size_t length = 2; length <= longest; ++length) {
      tokens.emplace_back(length, ' ');
      kinds.push_back(4);
    }
    formats::GgufMetadata metadata =
        sentencepiece("llama", tokens, kinds, std::vector<double>(tokens.size(), -1000.0));
    metadata.values_["tokenizer.ggml.add_space_prefix"] = false;
    const auto tokenizer = Tokenizer::from_gguf(metadata);
    ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().text();
    const auto ids = tokenizer->encode("x   x", {.add_special_tokens = false});
    EXPECT_EQ(ids, longest == 3 ? (std::vector<int32_t>{4, 3, 3, 3, 4}) : (std::vector<int32_t>{4, 6, 4}));
    EXPECT_EQ(tokenizer->decode(*ids, SpecialTokens::keep), "x   x");
  }
}

TEST(GgufTokenizer, Phi3TokensTakeTheWhitespaceBehindThem) {
  formats::GgufMetadata metadata = sentencepiece("llama", {"<unk>", "<s>", "</s>", "▁", "x", "<|end|>"},
                                                 {2, 3, 3, 1, 1, 3}, {0, 0, 0, -1, -2, 0});
  metadata.values_["tokenizer.ggml.add_bos_token"] = false;
  metadata.values_["general.architecture"] = "phi3";
  EXPECT_EQ(Tokenizer::from_gguf(metadata)->encode("x<|end|>\n x<s> x"),
            (std::vector<int32_t>{3, 4, 5, 3, 4, 1, 3, 3, 4}));
}

TEST(GgufTokenizer, UnigramTakesTheLikeliestPiecesAndAddsEos) {
  formats::GgufMetadata metadata =
      sentencepiece("t5", {"<pad>", "[PAD1]", "</s>", "<unk>", "▁he", "▁hello", "llo", "l", "o", "▁"},
                    {3, 5, 3, 2, 1, 1, 1, 1, 1, 1}, {0, -1, 0, 0, -3, -9, -4, -6, -6, -2});
  metadata.values_["tokenizer.ggml.unknown_token_id"] = uint64_t{3};
  metadata.values_["tokenizer.ggml.remove_extra_whitespaces"] = true;
  const auto tokenizer = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().text();
  EXPECT_EQ(tokenizer->encode(" hello   zz lo "), (std::vector<int32_t>{4, 6, 9, 3, 9, 7, 8, 2}));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{4, 6, 9, 7, 8, 2}, SpecialTokens::skip), "hello lo");
  EXPECT_EQ(tokenizer->encode("lo</s>", {.add_special_tokens = false, .special_text = SpecialText::as_text}),
            (std::vector<int32_t>{9, 7, 8, 3, 3}))
      << "a control token in the vocabulary is not what a user's letters become";
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
      {"tokenizer.ggml.model", "bert", ErrorCode::unsupported, "bert"},
      {"tokenizer.ggml.model", uint64_t{7}, ErrorCode::malformed, "tokenizer.ggml.model"},
      {"tokenizer.ggml.tokens", std::vector<std::string>{}, ErrorCode::malformed, "tokenizer.ggml.tokens"},
      {"tokenizer.ggml.tokens", std::vector<std::string>{"a", "a", "ab", "b", "c"}, ErrorCode::malformed,
       "twice"},
      {"tokenizer.ggml.token_type", std::vector<int64_t>{1}, ErrorCode::malformed, "1 entries for 5 tokens"},
      {"tokenizer.ggml.token_type", std::vector<int64_t>{1, 1, 1, 3, 9}, ErrorCode::malformed, "of kind 9"},
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
