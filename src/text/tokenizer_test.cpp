#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "text/fixture_models.h"

namespace shoal::text {
namespace {

using testing::expect_value;
using testing::fixture;
using testing::ids_of;
using testing::string_of;

class TokenizerOf : public ::testing::TestWithParam<testing::Model> {
 protected:
  Tokenizer tokenizer_ = testing::open_tokenizer(fixture(GetParam().path));
  JsonObject expected_ = testing::read_expected(GetParam().expected);
};

INSTANTIATE_TEST_SUITE_P(Fixtures, TokenizerOf, ::testing::ValuesIn(testing::fixture_models()));

TEST_P(TokenizerOf, EncodesAsHuggingFace) {
  const JsonArray& cases = expected_["tokenizer"].as_array();
  ASSERT_GE(cases.size(), 20u);
  for (const Json& entry : cases) {
    const std::string text = string_of(entry.at("text"));
    EXPECT_EQ(expect_value(tokenizer_.encode(text, {.add_special_tokens = false}), text),
              ids_of(entry.at("ids")))
        << text;
    EXPECT_EQ(expect_value(tokenizer_.encode(text), text), ids_of(entry.at("ids_with_special"))) << text;
  }
}

TEST_P(TokenizerOf, EncodingWithCutsOutsideSpecialTokensChangesNothing) {
  for (const Json& entry : expected_["tokenizer"].as_array()) {
    const std::string text = string_of(entry.at("text"));
    const std::vector<size_t> cut_at_start = {0};
    EXPECT_EQ(expect_value(tokenizer_.encode_with_cuts(text, cut_at_start), text), ids_of(entry.at("ids")))
        << text;
  }
}

TEST_P(TokenizerOf, DecodesAsHuggingFace) {
  const auto check = [this](const Json& entry) {
    const std::vector<int32_t> ids = ids_of(entry.at("ids"));
    EXPECT_EQ(expect_value(tokenizer_.decode(ids, SpecialTokens::keep), "decode"),
              string_of(entry.at("decoded")));
    EXPECT_EQ(expect_value(tokenizer_.decode(ids, SpecialTokens::skip), "decode"),
              string_of(entry.at("decoded_skip_special")));
  };
  ASSERT_FALSE(expected_["decode"].as_array().empty());
  for (const Json& entry : expected_["tokenizer"].as_array()) check(entry);
  for (const Json& entry : expected_["decode"].as_array()) check(entry);
}

TEST_P(TokenizerOf, KnowsItsSpecialTokens) {
  const Json* bos = find(expected_, "bos");
  if (bos == nullptr) {
    EXPECT_EQ(tokenizer_.bos_id(), std::nullopt);
  } else {
    EXPECT_EQ(tokenizer_.bos_id(), tokenizer_.find(string_of(*bos)));
    EXPECT_NE(tokenizer_.bos_id(), std::nullopt);
  }
  const std::string eos = string_of(expected_["eos"]);
  const std::optional<int32_t> eos_id = tokenizer_.find(eos);
  ASSERT_NE(eos_id, std::nullopt);
  EXPECT_EQ(tokenizer_.token(*eos_id), eos);
  EXPECT_GT(tokenizer_.vocabulary_size(), static_cast<size_t>(*eos_id));
  EXPECT_THAT(tokenizer_.added_tokens(), ::testing::Contains(::testing::Field(&AddedToken::content, eos)));
}

TEST_P(TokenizerOf, ControlTokensInUserTextStayText) {
  for (const AddedToken& token : tokenizer_.added_tokens()) {
    EXPECT_TRUE(token.control || !token.special) << token.content;
    if (!token.control) continue;
    const std::string text = "say " + token.content + " aloud";
    const auto as_text = expect_value(
        tokenizer_.encode(text, {.add_special_tokens = false, .special_text = SpecialText::as_text}), text);
    EXPECT_THAT(as_text, ::testing::Not(::testing::Contains(token.id))) << text;
    EXPECT_EQ(expect_value(tokenizer_.decode(as_text, SpecialTokens::skip), text), text);
  }
}

TEST(Tokenizer, QuantisedModelsShareOneTokenizer) {
  const std::vector<std::string> paths = testing::quantised_models();
  ASSERT_GE(paths.size(), 13u);
  const Tokenizer first = testing::open_tokenizer(fixture(paths.front()));
  const std::string text = "Hello, world! über 12345 <|eot_id|>\n\n你好";
  const auto ids = expect_value(first.encode(text), text);
  EXPECT_EQ(ids.front(), first.bos_id());
  EXPECT_THAT(ids, ::testing::Contains(first.find("<|eot_id|>").value_or(-1)));
  for (const std::string& path : paths) {
    const Tokenizer tokenizer = testing::open_tokenizer(fixture(path));
    EXPECT_EQ(expect_value(tokenizer.encode(text), path), ids) << path;
    EXPECT_EQ(expect_value(tokenizer.decode(ids, SpecialTokens::keep), path), "<|begin_of_text|>" + text);
  }
}

TEST(Tokenizer, ReadsTheDemoModelFromItsGguf) {
  const Tokenizer tokenizer =
      testing::open_tokenizer(testing::source_directory() / "models/demo/shoal-demo-q8_0.gguf");
  EXPECT_EQ(tokenizer.vocabulary_size(), 4096u);
  const std::string text = "<|im_start|>user\nWhat is a KV cache? Él sums 1234.<|im_end|>\n";
  const auto ids = expect_value(tokenizer.encode(text), text);
  EXPECT_EQ(ids.front(), tokenizer.find("<|im_start|>"));
  EXPECT_LT(ids.size(), text.size() / 2) << "merges are at work";
  EXPECT_EQ(expect_value(tokenizer.decode(ids, SpecialTokens::keep), text), text);
}

TEST(Tokenizer, UnknownIdsAreSkippedAndNegativeOnesRefused) {
  const Tokenizer tokenizer = testing::open_tokenizer(fixture("models/llama"));
  const auto known = expect_value(tokenizer.encode("ab", {.add_special_tokens = false}), "ab");
  std::vector<int32_t> ids = known;
  ids.push_back(1'000'000);
  EXPECT_EQ(expect_value(tokenizer.decode(ids, SpecialTokens::keep), "unknown id"), "ab");
  EXPECT_EQ(tokenizer.token(1'000'000), std::nullopt);
  EXPECT_EQ(tokenizer.token(-1), std::nullopt);
  ids.push_back(-1);
  const auto refused = tokenizer.decode(ids, SpecialTokens::keep);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = testing::open_tokenizer(fixture("models/llama"));
  const auto refused = tokenizer.encode("a\xff");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
}

TEST(Tokenizer, IsSharedByThreads) {
  const Tokenizer tokenizer = testing::open_tokenizer(fixture("models/qwen3"));
  const std::string text = "def main():\n    return 'schön' + 東京 # 12345";
  const auto expected = expect_value(tokenizer.encode(text), text);
  std::vector<int> equal(4, 0);
  {
    std::vector<std::jthread> threads;
    for (int& count : equal) {
      threads.emplace_back([&count, &text, &expected, copy = tokenizer] {
        for (int round = 0; round < 200; ++round) count += copy.encode(text) == expected ? 1 : 0;
      });
    }
  }
  EXPECT_THAT(equal, ::testing::Each(200));
}

TEST(Tokenizer, BrokenFilesAreErrors) {
  for (const char* name : {"tok_merge_missing_dir", "tok_not_utf8_dir", "tok_id_huge_dir"}) {
    const auto refused = Tokenizer::open(testing::open_checkpoint(fixture("bad") / name));
    ASSERT_FALSE(refused.has_value()) << name;
    EXPECT_TRUE(refused.error().code == ErrorCode::malformed ||
                refused.error().code == ErrorCode::limit_exceeded)
        << refused.error().text();
  }
  for (const char* json : {"", "{}", "[]", "{\"version\":\"1.0\"}", "{\"model\":{\"type\":\"BPE\"}}"}) {
    EXPECT_FALSE(Tokenizer::from_json(json).has_value()) << json;
  }
}

// A tokenizer.json of three tokens with one member replaced.
std::string with_member(std::string_view name, std::string_view value) {
  std::string json = R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], )";
  for (std::string_view member : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    json += "\"" + std::string(member) + "\": " + std::string(member == name ? value : "null") + ", ";
  }
  constexpr std::string_view kModel =
      R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})";
  return json + "\"model\": " + std::string(name == "model" ? value : kModel) + "}";
}

TEST(Tokenizer, HostileFilesAreErrors) {
  ASSERT_TRUE(Tokenizer::from_json(with_member("", "")).has_value()) << "the control";
  std::string deep = R"({"type": "Lowercase"})";
  for (int level = 0; level < 5000; ++level) deep = R"({"type": "Sequence", "normalizers": [)" + deep + "]}";
  const auto split = [](const std::string& pattern) {
    return R"({"type": "Split", "pattern": {"Regex": ")" + pattern +
           R"("}, "behavior": "Isolated", "invert": false})";
  };
  const std::string blow_up =
      R"({"type": "Replace", "pattern": {"String": ""}, "content": ")" + std::string(2000, 'x') + R"("})";
  const std::vector<std::pair<std::string, std::string>> files = {
      {"normalizer", deep},
      {"pre_tokenizer", split("(?:a{1000}){1000}")},
      {"pre_tokenizer", split(std::string(100'000, '(') + std::string(100'000, ')'))},
      {"pre_tokenizer", split("(")},
      {"pre_tokenizer", R"({"type": "FixedLength", "length": 0})"},
      // A table of four gigabytes, and one whose entries lead out of it.
      {"normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "/P///2FiY2Q="})"},
      {"normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhAA=="})"},
      {"normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "!"})"},
      {"normalizer", R"({"type": "Sequence", "normalizers": [)" + blow_up + ", " + blow_up + "]}"},
      {"decoder", R"({"type": "Sequence", "decoders": [)" + blow_up + ", " + blow_up + "]}"},
      {"decoder", R"({"type": "Strip", "content": "a", "start": 4294967295, "stop": 4294967295})"},
      {"post_processor",
       R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "z", "type_id": 0}}], "pair": [],
           "special_tokens": {}})"},
      {"model", R"({"type": "BPE", "vocab": {"a": 4294967295}, "merges": []})"},
      {"model", R"({"type": "BPE", "vocab": {"a": -1}, "merges": []})"},
      {"model", R"({"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": ["a a", "aa a"]})"},
      {"model", R"({"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 2})"},
      {"model", R"({"type": "Unigram", "unk_id": 9, "vocab": [["a", 0]]})"},
  };
  for (const auto& [member, value] : files) {
    const auto refused = Tokenizer::from_json(with_member(member, value));
    ASSERT_FALSE(refused.has_value()) << member << " " << value.substr(0, 100);
    EXPECT_TRUE(refused.error().code == ErrorCode::malformed ||
                refused.error().code == ErrorCode::limit_exceeded)
        << refused.error().text();
  }
}

// Each of them is joined by merges and has to be cut again; one after the other would take hours.
TEST(Tokenizer, AMessageFullOfControlTokensIsReadInLinearTime) {
  const Tokenizer tokenizer = expect_value(
      Tokenizer::from_json(R"({"version": "1.0", "added_tokens": [{"id": 4, "content": "<s>", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}], "model": {"type": "BPE",
        "vocab": {"<": 0, "s": 1, ">": 2, "<s": 3, "<s>": 4}, "merges": ["< s", "<s >"]}})"),
      "made tokenizer");
  std::string text;
  std::vector<int32_t> expected;
  for (int repeat = 0; repeat < 100'000; ++repeat) {
    text += "<s>";
    expected.insert(expected.end(), {0, 1, 2});
  }
  const EncodeOptions as_text{.add_special_tokens = false, .special_text = SpecialText::as_text};
  EXPECT_TRUE(expect_value(tokenizer.encode(text, as_text), "the message") == expected);
  EXPECT_EQ(expect_value(tokenizer.encode("<s>", {.add_special_tokens = false}), "a control token"),
            std::vector<int32_t>{4});
}

TEST(Tokenizer, CatastrophicPatternEndsInBoundedTime) {
  const Tokenizer tokenizer = testing::open_tokenizer(fixture("bad/tok_regex_dir"));
  const std::string text = std::string(40, 'a') + "!";
  const auto ids = tokenizer.encode(text, {.add_special_tokens = false});
  if (ids.has_value()) {
    EXPECT_EQ(expect_value(tokenizer.decode(*ids, SpecialTokens::keep), text), text);
  }
}

TEST(Tokenizer, GoodControlOfTheBrokenFilesOpens) {
  const Tokenizer tokenizer = testing::open_tokenizer(fixture("bad/good_tokenize_dir"));
  EXPECT_FALSE(expect_value(tokenizer.encode("hello world"), "hello world").empty());
}

}  // namespace
}  // namespace shoal::text
