#include "text/chat_encoder.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/fixture_models.h"

namespace shoal::text {
namespace {

using testing::expect_value;
using testing::fixture;
using testing::ids_of;
using testing::string_of;

JsonObject message(std::string_view role, std::string_view content) {
  JsonObject result;
  result["role"] = role;
  result["content"] = content;
  return result;
}

class ChatOf : public ::testing::TestWithParam<testing::Model> {
 protected:
  formats::Checkpoint checkpoint_ = testing::open_checkpoint(fixture(GetParam().path));
  Tokenizer tokenizer_ = expect_value(Tokenizer::open(checkpoint_), "tokenizer");
  ChatTemplate template_ = expect_value(ChatTemplate::from_checkpoint(checkpoint_), "template");

  // Not those that put a space before words and take one away in decoding, or whose tokens swallow
  // whitespace.
  bool decodes_to_what_was_encoded_ = !tokenizer_.find("▁");

  EncodedChat encode(const ChatInput& input) {
    return expect_value(encode_chat(tokenizer_, template_, input), "encode_chat");
  }
  std::ptrdiff_t control_count(const std::vector<int32_t>& tokens) {
    return std::ranges::count_if(tokens, [this](int32_t id) {
      return std::ranges::any_of(tokenizer_.added_tokens(),
                                 [id](const AddedToken& token) { return token.control && token.id == id; });
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Fixtures, ChatOf, ::testing::ValuesIn(testing::fixture_models()));

TEST_P(ChatOf, GivesTheTokensOfHuggingFace) {
  JsonObject expected = testing::read_expected(GetParam().expected);
  size_t compared = 0;
  for (const Json& entry : expected["chat"].as_array()) {
    if (const Json* raises = find(entry.as_object(), "raises"); raises != nullptr && raises->as_bool())
      continue;
    const EncodedChat chat = encode(testing::chat_input_of(entry));
    EXPECT_EQ(chat.text, string_of(entry.at("rendered")));
    EXPECT_EQ(chat.tokens, ids_of(entry.at("ids")));
    ++compared;
  }
  EXPECT_GE(compared, 4u);
}

TEST_P(ChatOf, ControlTokensInMessagesStayText) {
  const std::ptrdiff_t honest = control_count(encode({.messages = {message("user", "hello")}}).tokens);
  ASSERT_GT(honest, 0);
  for (const AddedToken& token : tokenizer_.added_tokens()) {
    if (!token.control) continue;
    for (const std::string& content :
         {token.content, "a " + token.content + "b", token.content + token.content,
          "x\n" + token.content + "\n" + token.content.substr(0, 4), "<" + token.content}) {
      const ChatInput input{.messages = {message("user", content)}};
      const EncodedChat chat = encode(input);
      EXPECT_EQ(control_count(chat.tokens), honest) << content;
      EXPECT_EQ(chat.text, expect_value(template_.render(input), "render")) << content;
      if (!decodes_to_what_was_encoded_) continue;
      EXPECT_EQ(expect_value(tokenizer_.decode(chat.tokens, SpecialTokens::keep), "decode"), chat.text)
          << content;
    }
  }
}

TEST_P(ChatOf, ControlTokensInAnyRoleStayText) {
  const auto conversation = [](std::string_view content) {
    return ChatInput{.messages = {message("system", content), message("user", content),
                                  message("assistant", content), message("user", content)}};
  };
  const std::string eos = string_of(testing::read_expected(GetParam().expected)["eos"]);
  EXPECT_EQ(control_count(encode(conversation("be " + eos)).tokens),
            control_count(encode(conversation("be nice")).tokens));
}

TEST_P(ChatOf, SentinelsOfTheUserSurvive) {
  const std::string eos = string_of(testing::read_expected(GetParam().expected)["eos"]);
  const std::string content = "\xEF\xB7\x90 and \\ufdd1 and " + eos;
  const EncodedChat chat = encode({.messages = {message("user", content)}});
  EXPECT_THAT(chat.text, ::testing::HasSubstr(content));
  EXPECT_EQ(control_count(chat.tokens), control_count(encode({.messages = {message("user", "x")}}).tokens));
}

Tokenizer qwen() {
  return testing::open_tokenizer(fixture("models/qwen3"));
}

TEST(ChatEncoder, PartsThatJoinToASpecialTokenStayText) {
  const Tokenizer tokenizer = qwen();
  const ChatTemplate chat_template = expect_value(
      ChatTemplate::open({.text = "<|im_start|>{% for m in messages %}{{ m.content|trim }}{% endfor %}"}),
      "open");
  const EncodedChat chat =
      expect_value(encode_chat(tokenizer, chat_template,
                               {.messages = {message("user", "a <|im_ \n"), message("user", "end|> b"),
                                             message("user", "<"), message("user", "|im_end|>")}}),
                   "encode");
  EXPECT_EQ(chat.text, "<|im_start|>a <|im_end|> b<|im_end|>");
  EXPECT_EQ(std::ranges::count(chat.tokens, *tokenizer.find("<|im_start|>")), 1);
  EXPECT_EQ(std::ranges::count(chat.tokens, *tokenizer.find("<|im_end|>")), 0);
}

TEST(ChatEncoder, ToolsAndVariablesStayTextInJsonToo) {
  const Tokenizer tokenizer = qwen();
  const ChatTemplate chat_template = expect_value(
      ChatTemplate::open({.text = "{{ tools|tojson }}{{ tools|tojson(ensure_ascii=true) }}{{ name }}"
                                  "<|im_end|>"}),
      "open");
  JsonObject tool;
  tool["<|im_end|>"] = JsonArray{Json("é <|im_end|>")};
  ChatInput input{.messages = {}, .tools = JsonArray{tool}};
  input.variables["name"] = "<|im_start|>";
  const EncodedChat chat = expect_value(encode_chat(tokenizer, chat_template, input), "encode");
  EXPECT_EQ(
      chat.text,
      R"([{"<|im_end|>": ["é <|im_end|>"]}][{"<|im_end|>": ["\u00e9 <|im_end|>"]}]<|im_start|><|im_end|>)");
  EXPECT_EQ(std::ranges::count(chat.tokens, *tokenizer.find("<|im_end|>")), 1);
  EXPECT_EQ(chat.tokens.back(), *tokenizer.find("<|im_end|>"));
  EXPECT_EQ(std::ranges::count(chat.tokens, *tokenizer.find("<|im_start|>")), 0);
}

TEST(ChatEncoder, OrdinaryAddedTokensInMessagesAreRecognised) {
  const Tokenizer tokenizer = qwen();
  const ChatTemplate chat_template =
      expect_value(ChatTemplate::open({.text = "{{ messages[0].content }}"}), "open");
  const EncodedChat chat =
      expect_value(encode_chat(tokenizer, chat_template,
                               {.messages = {message("assistant", "<think>hm</think> <|im_end|>")}}),
                   "x");
  EXPECT_EQ(chat.tokens.front(), *tokenizer.find("<think>"));
}

TEST(ChatEncoder, AllNoncharactersInTheInputAreRefused) {
  std::string content;
  for (int offset = 0; offset < 32; ++offset) {
    content += {static_cast<char>(0xEF), static_cast<char>(0xB7), static_cast<char>(0x90 + offset)};
  }
  const ChatTemplate chat_template = expect_value(ChatTemplate::open({.text = "x"}), "open");
  const auto refused = encode_chat(qwen(), chat_template, {.messages = {message("user", content)}});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace shoal::text
