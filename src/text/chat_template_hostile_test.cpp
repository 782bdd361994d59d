// Templates that are made to exhaust their reader: each must end in an Error, soon and within bounds.
#include <gtest/gtest.h>

#include "text/chat_template.h"
#include "text/fixture_models.h"

namespace shoal::text {
namespace {

std::string repeated(std::string_view text, size_t times) {
  std::string result;
  for (size_t round = 0; round < times; ++round) result += text;
  return result;
}

ErrorCode code_of(const std::string& source) {
  const auto chat = ChatTemplate::open({.text = source});
  if (!chat.has_value()) return chat.error().code;
  const auto rendered = chat->render({.messages = {}});
  return rendered.has_value() ? ErrorCode::internal : rendered.error().code;
}

void expect_refused(const std::string& source) {
  const ErrorCode code = code_of(source);
  EXPECT_TRUE(code == ErrorCode::limit_exceeded || code == ErrorCode::invalid_argument ||
              code == ErrorCode::malformed)
      << source.substr(0, 200) << " ends in " << static_cast<int>(code);
}

TEST(HostileTemplate, HugeTextsAndListsAreRefused) {
  for (const char* expression :
       {"'a' * 1000000000", "'a' * 10**18", "[1] * 10**9", "range(10**12)|list", "range(99999)|list * 10000",
        "('a'*1000000)|replace('a', 'b'*1000000)", "('a'*1000000).replace('', 'b'*1000)",
        "('b'*1000000).join(['a'*1000]*100000)", "('<'*100000000)|e", "strftime_now('%Y'*90000000)",
        "range(10)|batch(10**12, 'x')|list", "range(10)|slice(10**12)|list", "2**100000",
        "raise_exception('x'*100000000)"}) {
    expect_refused("{{ " + std::string(expression) + " }}");
  }
}

TEST(HostileTemplate, HugeWidthsAreRefused) {
  for (const char* expression :
       {"'%0999999999d'|format(1)", "'%.999999999f'|format(1.5)", "'{:>999999999}'.format('a')",
        "'{:.999999999f}'.format(1.0)", "'a'.center(10**9)", "'a'.ljust(10**18)", "'a'|center(10**9)",
        "'a'.zfill(10**10)", "('\\t'*1000000).expandtabs(1000000)", "'a\\nb'|indent(10**9)",
        "('a\\n'*100000)|indent(100000)", "[1]|tojson(indent=10**9)",
        "range(99999)|list|tojson(indent=1000000)"}) {
    expect_refused("{{ " + std::string(expression) + " }}");
  }
}

// Dropping, comparing and printing nested values all recurse.
TEST(HostileTemplate, DeeplyNestedValuesDoNotOverrunTheStack) {
  const auto nested = [](std::string_view step, std::string_view use) {
    return "{% set ns = namespace(a=1, b=1) %}{% for i in range(99999) %}{% for j in range(9) %}" +
           std::string(step) + "{% endfor %}{% endfor %}" + std::string(use);
  };
  expect_refused(nested("{% set ns.a = namespace(a=ns.a) %}", ""));
  expect_refused(nested("{% set ns.a = [ns.a] %}", "{{ ns.a|tojson }}"));
  for (const char* use : {"{{ ns.a ~ '' }}", "{{ {ns.a: 1} }}", "{{ raise_exception(ns.a) }}"}) {
    expect_refused(nested("{% set ns.a = [ns.a] %}", use));
  }
  expect_refused(
      nested("{% set ns.a = [ns.a] %}{% set ns.b = [ns.b] %}", "{{ ns.a == ns.b }}{{ ns.a|tojson }}"));
}

TEST(HostileTemplate, ValuesThatHoldThemselvesEnd) {
  const std::string circle = "{% set x = namespace() %}{% set x.x = [x] %}";
  for (const char* use : {"{{ x ~ '' }}", "{{ {x: 1} }}", "{{ '%s'|format(x) }}"}) {
    expect_refused(circle + use);
  }
}

TEST(HostileTemplate, LosingMemoryIsNotAllowedTwice) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the leak checker sees what is lost";
#endif
  const auto chat = ChatTemplate::open({.text = "{% set x = namespace() %}{% set x.x = x %}{% set x.y = 'y' "
                                                "* (100000 + messages|length) %}{{ x.y|length }}"});
  ASSERT_TRUE(chat.has_value());
  EXPECT_EQ(chat->render({.messages = {}}), "100000");
  EXPECT_EQ(chat->render({.messages = {}}).error().code, ErrorCode::limit_exceeded);
}

TEST(HostileTemplate, HonestTemplatesMayBeRenderedAgainAndAgain) {
  const auto chat =
      ChatTemplate::open({.text = "{% macro f(a) %}{{ a|tojson }}{% endmacro %}{% set ns = namespace(n=[]) %}"
                                  "{% for i in range(100) %}{% set ns.n = ns.n + [f('x' * i)] %}{% endfor %}"
                                  "{{ ns.n|join|length }}{{ strftime_now('%Y')|length }}"});
  ASSERT_TRUE(chat.has_value());
  for (int round = 0; round < 20; ++round) EXPECT_EQ(chat->render({.messages = {}}), "51504");
}

TEST(HostileTemplate, DeepSyntaxIsRefusedOrRuns) {
  for (const std::string& source :
       {"{{ " + repeated("-", 1'000'000) + "1 }}", "{{ " + repeated("- ", 500'000) + "1 }}",
        "{{ " + repeated("[", 100'000) + " }}", repeated("{% for x in y %}", 20'000), repeated("{{", 100'000),
        repeated("{% macro a() %}", 10'000), "{{ a" + repeated("[0]", 300'000) + " }}",
        "{{ a" + repeated("(1)", 300'000) + " }}",
        std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        std::string("{% block a %}{{ self.a() }}{% endblock %}"),
        std::string("{% include 'chat_template' %}")}) {
    expect_refused(source);
  }
  for (const std::string& source :
       {"{{ " + repeated("not ", 200'000) + "1 }}", "{{ 1" + repeated("+1", 400'000) + " }}"}) {
    const auto chat = ChatTemplate::open({.text = source});
    ASSERT_TRUE(chat.has_value()) << chat.error().text();
    EXPECT_TRUE(chat->render({.messages = {}}).has_value());
  }
}

TEST(HostileTemplate, EndlessWorkEndsInTime) {
  const std::string doubling = "{% set a = [1] %}" + repeated("{% set a = [a,a,a,a,a,a,a,a,a,a] %}", 12);
  EXPECT_EQ(code_of(doubling + "{{ a|tojson }}"), ErrorCode::limit_exceeded);
}

TEST(HostileTemplate, NothingOfTheProcessIsVisible) {
  for (const char* expression : {"debug()", "''.__class__.__mro__[1]", "messages.append(1)",
                                 "''.format.__globals__['x']", "'{0.__class__}'.format(1)"}) {
    expect_refused("{{ " + std::string(expression) + " }}");
  }
}

TEST(HostileTemplate, LongRefusalsAreCutShort) {
  const auto chat = ChatTemplate::open({.text = "{{ raise_exception('é' * 100000) }}"});
  ASSERT_TRUE(chat.has_value());
  EXPECT_LE(chat->render({.messages = {}}).error().message.size(), 16u << 10);
}

}  // namespace
}  // namespace shoal::text
