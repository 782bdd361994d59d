#include "text/chat_template.h"

#include <cstdlib>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/fixture_models.h"

namespace shoal::text {
namespace {

using testing::expect_value;
using testing::fixture;
using ::testing::HasSubstr;
using testing::string_of;

class TemplateOf : public ::testing::TestWithParam<testing::Model> {};

INSTANTIATE_TEST_SUITE_P(Fixtures, TemplateOf, ::testing::ValuesIn(testing::fixture_models()));

TEST_P(TemplateOf, RendersAsTransformers) {
  const auto checkpoint = testing::open_checkpoint(fixture(GetParam().path));
  const ChatTemplate chat = expect_value(ChatTemplate::from_checkpoint(checkpoint), "template");
  JsonObject expected = testing::read_expected(GetParam().expected);
  size_t rendered = 0;
  for (const Json& entry : expected["chat"].as_array()) {
    const std::string name = string_of(entry.at("name"));
    const auto text = chat.render(testing::chat_input_of(entry));
    if (const Json* raises = find(entry.as_object(), "raises"); raises != nullptr && raises->as_bool()) {
      ASSERT_FALSE(text.has_value()) << name;
      EXPECT_EQ(text.error().code, ErrorCode::invalid_argument) << name;
      continue;
    }
    EXPECT_EQ(expect_value(text, name), string_of(entry.at("rendered"))) << name;
    ++rendered;
  }
  EXPECT_GE(rendered, 4u);
}

Result<std::string> render(std::string source, std::string_view variables = "{}") {
  SHOAL_TRY(ChatTemplate chat, ChatTemplate::open({.text = std::move(source)}));
  SHOAL_TRY(JsonObject object, parse_json_object(variables, "variables"));
  return chat.render({.messages = {}, .variables = std::move(object), .unix_seconds = 1'721'952'000});
}

TEST(ChatTemplate, PrintsValuesAsPythonDoes) {
  EXPECT_EQ(render("{{ none }} {{ true }} {{ 1.0 }} {{ 1e22 }} {{ 0.00001 }} {{ missing }}"),
            "None True 1.0 1e+22 1e-05 ");
  EXPECT_EQ(render("{{ x }}", R"({"x": {"a": [1, null, "it's"], "b": false}})"),
            R"({'a': [1, None, "it's"], 'b': False})");
  EXPECT_EQ(render("{{ x|string ~ '!' }}", R"({"x": true})"), "True!");
}

TEST(ChatTemplate, WritesJsonAsPythonDoes) {
  constexpr std::string_view kValue =
      R"({"x": {"z": 1, "a": ["<&'\u00e9\n", true, null, 1.50], "e": {}, "l": []}})";
  EXPECT_EQ(render("{{ x|tojson }}", kValue),
            R"({"z": 1, "a": ["<&'é\n", true, null, 1.5], "e": {}, "l": []})");
  EXPECT_EQ(render("{{ x|tojson(ensure_ascii=true, sort_keys=true) }}", kValue),
            R"({"a": ["<&'\u00e9\n", true, null, 1.5], "e": {}, "l": [], "z": 1})");
  EXPECT_EQ(render("{{ x.a|tojson(indent=2) }}", kValue), "[\n  \"<&'é\\n\",\n  true,\n  null,\n  1.5\n]");
  EXPECT_EQ(render("{{ x.e|tojson(indent=2) }}{{ {'a': 1}|tojson(separators=(',', ':')) }}", kValue),
            "{}{\"a\":1}");
}

TEST(ChatTemplate, HasPythonsMethodsAndLoopControls) {
  EXPECT_EQ(render("{{ ' a,b '.strip().split(',')[1].upper() }}{{ {'k': 1}.items()|list|length }}"), "B1");
  EXPECT_EQ(
      render("{% for i in [1,2,3,4] %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}"
             "{% endif %}{{ i }}{% endfor %}"),
      "13");
  EXPECT_EQ(render("{%- generation -%} a {%- endgeneration %}b"), "ab");
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y, %A %-d %H:%M') }}"), "26 Jul 2024, Friday 26 00:00");
  EXPECT_EQ(render("  {% if true %}\n  x\n  {% endif %}\ny"), "  x\ny") << "trim_blocks and lstrip_blocks";
}

TEST(ChatTemplate, HasWhatPublishedTemplatesUseOfJinja) {
  EXPECT_EQ(render("{{ 's' is sequence }} {{ {} is sequence }} {{ 1 is sequence }} {{ 's' is iterable }} {{ "
                   "1 is callable }}"),
            "True True False True False");
  EXPECT_EQ(render("{{ 'a-b-c'.rsplit('-', 1) }}{{ 'a b '.rsplit() }}{{ 'a-b'.partition('-')[2] }}"),
            "['a-b', 'c']['a', 'b']b");
  EXPECT_EQ(render("{{ 'abc'.removeprefix('a').removesuffix('c') }}{{ 'xyz'.index('z') }}"), "b2");
  EXPECT_EQ(render("{% set ns = namespace(x=[]) %}{% for i in 'ab' %}{% set ns.x = ns.x + [i] %}{% endfor "
                   "%}{{ ns.x }}"),
            "['a', 'b']");
  EXPECT_EQ(
      render(
          "{% macro f(a, b='z') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=2) }} {{ [1,2,3][::-1] }}"),
      "1z12 [3, 2, 1]");
  EXPECT_FALSE(render("{{ 'x'.nosuch() }}").has_value());
}

TEST(ChatTemplate, RefusalsCarryTheTemplatesWords) {
  const auto refused = render("{{ raise_exception('roles must alternate') }}");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(refused.error().message, "roles must alternate");
}

TEST(ChatTemplate, NullMembersOfMessagesAreAbsent) {
  const ChatTemplate chat = expect_value(
      ChatTemplate::open({.text = "{{ messages[0].content is defined }}{{ tools is none }}"}), "open");
  JsonObject message;
  message["content"] = nullptr;
  EXPECT_EQ(chat.render({.messages = {message}}), "FalseTrue");
}

TEST(ChatTemplate, ToolChatsUseTheToolTemplate) {
  const ChatTemplate chat = expect_value(
      ChatTemplate::open({.text = "plain {{ bos_token }}", .tool_text = "tools", .bos_token = "<s>"}),
      "open");
  EXPECT_EQ(chat.render({.messages = {}}), "plain <s>");
  EXPECT_EQ(chat.render({.messages = {}, .tools = JsonArray()}), "plain <s>");
  EXPECT_EQ(chat.render({.messages = {}, .tools = JsonArray{JsonObject()}}), "tools");
}

// A directory with one weight and the given files.
class ModelDirectory : public ::testing::Test {
 protected:
  formats::Checkpoint with(const std::vector<std::pair<std::string, std::string>>& files) {
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(fixture("models/llama_tied") / name, directory_ / name);
    }
    for (const auto& [name, text] : files) std::ofstream(directory_ / name) << text;
    return testing::open_checkpoint(directory_);
  }
  Result<std::string> rendered(const formats::Checkpoint& checkpoint, Json tools = nullptr) {
    SHOAL_TRY(ChatTemplate chat, ChatTemplate::from_checkpoint(checkpoint));
    return chat.render({.messages = {}, .tools = std::move(tools)});
  }
  ~ModelDirectory() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_ = [] {
    std::string path = (std::filesystem::temp_directory_path() / "shoal-template-XXXXXX").string();
    return std::filesystem::path(mkdtemp(path.data()));
  }();
};

TEST_F(ModelDirectory, TemplateFileWinsOverTheConfig) {
  const auto checkpoint =
      with({{"chat_template.jinja", "file {{ bos_token }}{{ unk_token }}{{ pad_token is defined }}"},
            {"tokenizer_config.json", R"({"chat_template": "config", "bos_token": {"content": "<s>"}})"},
            {"special_tokens_map.json", R"({"bos_token": "<other>", "unk_token": "<unk>"})"}});
  EXPECT_EQ(rendered(checkpoint), "file <s><unk>False");
}

TEST_F(ModelDirectory, NamedTemplatesAreChosenByTheTools) {
  const auto checkpoint = with({{"tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "with tools"}, {"name": "default", "template": "plain"},
      {"name": "rag", "template": "{% broken"}]})"}});
  EXPECT_EQ(rendered(checkpoint), "plain");
  EXPECT_EQ(rendered(checkpoint, JsonArray{JsonObject()}), "with tools");
  EXPECT_TRUE(expect_value(ChatTemplate::from_checkpoint(checkpoint), "two templates").has_tool_template());
}

TEST_F(ModelDirectory, ProcessorsTemplateIsTheLastToBeAsked) {
  const auto checkpoint = with({{"tokenizer_config.json", R"({"chat_template": null})"},
                                {"chat_template.json", R"({"chat_template": "of the processor"})"}});
  EXPECT_EQ(rendered(checkpoint), "of the processor");
  EXPECT_FALSE(expect_value(ChatTemplate::from_checkpoint(checkpoint), "one template").has_tool_template());
}

TEST_F(ModelDirectory, WithoutATemplateIsNotFound) {
  const auto missing = rendered(with({}));
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
}

TEST(ChatTemplate, BrokenTemplatesNameTheLine) {
  const auto refused = ChatTemplate::open({.text = "a\n{% for m in messages %}{{ m.content }"});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::malformed);
  EXPECT_THAT(refused.error().message, HasSubstr(":2)"));
  EXPECT_EQ(ChatTemplate::open({.text = std::string(2 << 20, ' ')}).error().code, ErrorCode::limit_exceeded);
}

TEST(ChatTemplate, HostileFilesEndInErrors) {
  for (const char* name :
       {"chat_huge_range_dir", "chat_repeat_dir", "chat_unclosed_dir", "chat_recursion_dir"}) {
    const auto checkpoint = testing::open_checkpoint(fixture("bad") / name);
    const auto chat = ChatTemplate::from_checkpoint(checkpoint);
    if (!chat.has_value()) {
      EXPECT_EQ(chat.error().code, ErrorCode::malformed) << name;
      continue;
    }
    EXPECT_FALSE(chat->render({.messages = {JsonObject{{"role", "user"}, {"content", "hi"}}}}).has_value())
        << name;
  }
  const auto good = testing::open_checkpoint(fixture("bad/good_chat_dir"));
  const ChatTemplate control = expect_value(ChatTemplate::from_checkpoint(good), "good_chat_dir");
  EXPECT_EQ(control.render({.messages = {JsonObject{{"role", "user"}, {"content", "hi"}}}}), "user: hi\n");
}

TEST(ChatTemplate, EndlessWorkRunsOutOfFuel) {
  const auto refused =
      render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::limit_exceeded) << refused.error().text();
}

TEST(ChatTemplate, DoublingStringsRunOutOfMemoryAndTheTemplateIsNotTriedAgain) {
  std::string source = "{% set a = 'x' * 1000 %}";
  for (int round = 0; round < 40; ++round) source += "{% set a = a ~ a %}";
  const ChatTemplate chat = expect_value(ChatTemplate::open({.text = source}), "open");
  for (const char* reason : {"bytes of memory", "before"}) {
    const auto refused = chat.render({.messages = {}});
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::limit_exceeded);
    EXPECT_THAT(refused.error().message, HasSubstr(reason));
  }
}

TEST(ChatTemplate, OverlongOutputIsRefused) {
  const auto refused = render("{% for i in range(300) %}{{ 'x' * 100000 }}{% endfor %}");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::limit_exceeded);
  EXPECT_THAT(refused.error().message, HasSubstr("too long"));
}

TEST(ChatTemplate, DeepNestingIsAnErrorNotACrash) {
  const std::string deep = "{{ " + std::string(100'000, '(') + "1" + std::string(100'000, ')') + " }}";
  EXPECT_FALSE(ChatTemplate::open({.text = deep}).has_value());
  std::string blocks;
  for (int level = 0; level < 20'000; ++level) blocks += "{% if 1 %}";
  EXPECT_FALSE(ChatTemplate::open({.text = blocks}).has_value());
}

}  // namespace
}  // namespace shoal::text
