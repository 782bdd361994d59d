#include "text/detokenizer.h"

#include <gtest/gtest.h>
#include <random>

#include "text/fixture_models.h"

namespace shoal::text {
namespace {

using testing::expect_value;
using testing::fixture;
using testing::ids_of;
using testing::string_of;

struct Streamed {
  std::string text;
  size_t silent_pushes = 0;
};

Streamed stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, SpecialTokens special) {
  auto detokenizer = expect_value(IncrementalDetokenizer::open(tokenizer, special), "open");
  Streamed streamed;
  for (int32_t id : ids) {
    const std::string piece = expect_value(detokenizer.push(id), "push");
    // Boost.JSON validates UTF-8 when it parses.
    EXPECT_TRUE(parse_json(to_text(Json(piece)), "piece").has_value()) << "a piece is whole characters";
    streamed.silent_pushes += piece.empty() ? 1 : 0;
    streamed.text += piece;
  }
  streamed.text += expect_value(detokenizer.flush(), "flush");
  return streamed;
}

class DetokenizerOf : public ::testing::TestWithParam<testing::Model> {
 protected:
  Tokenizer tokenizer_ = testing::open_tokenizer(fixture(GetParam().path));
};

INSTANTIATE_TEST_SUITE_P(Fixtures, DetokenizerOf, ::testing::ValuesIn(testing::fixture_models()));

TEST_P(DetokenizerOf, PiecesAddUpToTheWholeDecoding) {
  JsonObject expected = testing::read_expected(GetParam().expected);
  size_t cases = 0;
  for (const char* list : {"tokenizer", "decode"}) {
    for (const Json& entry : expected[list].as_array()) {
      const std::vector<int32_t> ids = ids_of(entry.at("ids"));
      EXPECT_EQ(stream(tokenizer_, ids, SpecialTokens::keep).text, string_of(entry.at("decoded")));
      EXPECT_EQ(stream(tokenizer_, ids, SpecialTokens::skip).text,
                string_of(entry.at("decoded_skip_special")));
      ++cases;
    }
  }
  EXPECT_GE(cases, 40u);
}

TEST_P(DetokenizerOf, RandomTokensAddUpToo) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(tokenizer_.vocabulary_size()) + 3);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> ids(static_cast<size_t>(round % 40));
    for (int32_t& id : ids) id = any(random);
    EXPECT_EQ(stream(tokenizer_, ids, SpecialTokens::skip).text,
              expect_value(tokenizer_.decode(ids, SpecialTokens::skip), "decode"));
  }
}

TEST(Detokenizer, SpeaksAsSoonAsACharacterIsWhole) {
  const Tokenizer tokenizer = testing::open_tokenizer(fixture("models/llama"));
  const auto ids = expect_value(tokenizer.encode("plain words", {.add_special_tokens = false}), "encode");
  EXPECT_EQ(stream(tokenizer, ids, SpecialTokens::keep).silent_pushes, 0u);
}

// A SentencePiece tokenizer as GGUF stores it, small enough to read: "▁hi" and bytes for everything else.
Tokenizer sentencepiece() {
  formats::GgufMetadata metadata;
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> kinds = {2, 3, 3};
  std::vector<double> scores(3, 0);
  for (int byte = 0; byte < 256; ++byte) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    tokens.push_back({'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'});
    kinds.push_back(6);
    scores.push_back(0);
  }
  for (const char* token : {"▁hi", "▁h", "hi", "▁", "h", "i", "!"}) {
    tokens.push_back(token);
    kinds.push_back(1);
    scores.push_back(-static_cast<double>(tokens.size()));
  }
  metadata.values_["tokenizer.ggml.model"] = "llama";
  metadata.values_["tokenizer.ggml.tokens"] = tokens;
  metadata.values_["tokenizer.ggml.token_type"] = kinds;
  metadata.values_["tokenizer.ggml.scores"] = scores;
  metadata.values_["tokenizer.ggml.bos_token_id"] = uint64_t{1};
  metadata.values_["tokenizer.ggml.eos_token_id"] = uint64_t{2};
  return expect_value(Tokenizer::from_gguf(metadata), "sentencepiece");
}

TEST(Detokenizer, SentencePieceKeepsSpacesAndByteRuns) {
  const Tokenizer tokenizer = sentencepiece();
  for (const std::string text : {"hi", "hi hi!", "  hi", "hi  hi", "é", "hi é!é hi", "日本 hi", " "}) {
    const auto ids = expect_value(tokenizer.encode(text), text);
    EXPECT_EQ(ids.front(), 1) << "a leading bos";
    EXPECT_EQ(expect_value(tokenizer.decode(ids, SpecialTokens::skip), text), text);
    EXPECT_EQ(stream(tokenizer, ids, SpecialTokens::skip).text, text);
  }
  std::mt19937 random(11);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(tokenizer.vocabulary_size()) - 1);
  std::uniform_int_distribution<int32_t> word(static_cast<int32_t>(tokenizer.vocabulary_size()) - 7,
                                              static_cast<int32_t>(tokenizer.vocabulary_size()) - 1);
  for (int round = 0; round < 500; ++round) {
    std::vector<int32_t> ids(static_cast<size_t>(round % 20));
    for (int32_t& id : ids) id = random() % 3 == 0 ? any(random) : word(random);
    EXPECT_EQ(stream(tokenizer, ids, SpecialTokens::skip).text,
              expect_value(tokenizer.decode(ids, SpecialTokens::skip), "decode"));
  }
}

TEST(Detokenizer, SentencePieceMergesByScore) {
  const Tokenizer tokenizer = sentencepiece();
  const auto ids = expect_value(tokenizer.encode("hi", {.add_special_tokens = false}), "hi");
  EXPECT_EQ(ids, std::vector<int32_t>{*tokenizer.find("▁hi")});
}

}  // namespace
}  // namespace shoal::text
