// Templates against Jinja itself: jinja_cases.json holds expressions and whole templates in the manner of the
// published ones, with what jinja2 makes of them when it is set up as transformers does.
#include <gtest/gtest.h>

#include "text/chat_template.h"
#include "text/fixture_models.h"

namespace shoal::text {
namespace {

using testing::expect_value;
using testing::string_of;

const Json& cases() {
  static const Json read = testing::read_json(testing::source_directory() / "src/text/jinja_cases.json");
  return read;
}

Result<std::string> render(const std::string& source, const JsonObject& conversation) {
  SHOAL_TRY(ChatTemplate chat, ChatTemplate::open({.text = source}));
  ChatInput input{.variables = conversation, .unix_seconds = cases().at("unix_seconds").as_int64()};
  if (const Json* messages = find(conversation, "messages")) input.messages = messages->as_array();
  if (const Json* tools = find(conversation, "tools")) input.tools = *tools;
  if (const Json* prompt = find(conversation, "add_generation_prompt"))
    input.add_generation_prompt = prompt->as_bool();
  return chat.render(input);
}

void expect_rendering(const Result<std::string>& rendered, const Json& expected, const std::string& what) {
  if (expected.is_null()) {
    EXPECT_FALSE(rendered.has_value()) << what << " must be refused, but is " << rendered.value_or("");
  } else {
    ASSERT_TRUE(rendered.has_value()) << what << ": " << rendered.error().text();
    EXPECT_EQ(*rendered, string_of(expected)) << what;
  }
}

TEST(JinjaCases, ExpressionsGiveWhatJinjaGives) {
  const JsonArray& expressions = cases().at("expressions").as_array();
  ASSERT_GE(expressions.size(), 700u);
  for (const Json& entry : expressions) {
    const std::string source = string_of(entry.at(0));
    expect_rendering(render(source, cases().at("variables").as_object()), entry.at(1), source);
  }
}

TEST(JinjaCases, FamilyTemplatesGiveWhatJinjaGives) {
  const JsonArray& conversations = cases().at("conversations").as_array();
  const JsonArray& renders = cases().at("renders").as_array();
  ASSERT_GE(renders.size(), 100u);
  for (const Json& entry : renders) {
    const std::string name = string_of(entry.at(0));
    const auto index = entry.at(1).to_number<size_t>();
    const std::string source = string_of(cases().at("templates").at(name));
    expect_rendering(render(source, conversations.at(index).as_object()), entry.at(2),
                     name + " " + std::to_string(index));
  }
}

}  // namespace
}  // namespace shoal::text
