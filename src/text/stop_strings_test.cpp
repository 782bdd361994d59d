#include "text/stop_strings.h"

#include <gtest/gtest.h>
#include <random>

namespace shoal::text {
namespace {

struct Streamed {
  std::string text;
  std::optional<size_t> stop;
  bool operator==(const Streamed&) const = default;
};

Streamed stream(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Streamed streamed;
  for (const std::string& piece : pieces) {
    StopMatcher::Output output = matcher.push(piece);
    streamed.text += output.text;
    if (output.stop.has_value()) return {streamed.text, output.stop};
  }
  streamed.text += matcher.flush();
  return streamed;
}

TEST(StopMatcher, EndsBeforeTheStopStringAndNamesIt) {
  EXPECT_EQ(stream({"END", "\n\n"}, {"one\ntwo\n", "\nthree"}), (Streamed{"one\ntwo", 1}));
  EXPECT_EQ(stream({"END"}, {"xE", "N", "D y"}), (Streamed{"x", 0}));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"</s>", "stop"});
  EXPECT_EQ(matcher.push("a <").text, "a ");
  EXPECT_EQ(matcher.push("b").text, "<b");
  EXPECT_EQ(matcher.push("sto").text, "");
  EXPECT_EQ(matcher.push("ne").text, "stone");
  EXPECT_EQ(matcher.push("</s").text, "");
  EXPECT_EQ(matcher.flush(), "</s");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, TheFirstThatIsCompleteWinsThenTheLongest) {
  EXPECT_EQ(stream({"abcd", "bc"}, {"xabcd"}), (Streamed{"xa", 1}));
  EXPECT_EQ(stream({"bc", "abc"}, {"xabcd"}), (Streamed{"x", 1}));
}

TEST(StopMatcher, EmptyStopStringsNeverMatch) {
  EXPECT_EQ(stream({""}, {"text"}), (Streamed{"text", std::nullopt}));
  EXPECT_EQ(stream({"", "x"}, {"text"}), (Streamed{"te", 1}));
  EXPECT_EQ(stream({}, {"text"}), (Streamed{"text", std::nullopt}));
}

TEST(StopMatcher, SelfOverlappingStopsAreFound) {
  EXPECT_EQ(stream({"aab"}, {"a", "a", "a", "b"}), (Streamed{"a", 0}));
  EXPECT_EQ(stream({"abab"}, {"abaabab"}), (Streamed{"aba", 0}));
}

TEST(StopMatcher, TheCutIntoPiecesDoesNotMatter) {
  std::mt19937 random(3);
  size_t stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto word = [&](size_t longest) {
      std::string result(random() % longest + 1, 'a');
      for (char& letter : result) letter = static_cast<char>('a' + random() % 2);
      return result;
    };
    const std::vector<std::string> stops = {word(5), word(7), word(4)};
    const std::string text = word(24);
    const Streamed whole = stream(stops, {text});
    std::vector<std::string> pieces;
    for (size_t offset = 0; offset < text.size();) {
      const size_t size = random() % 4 + 1;
      pieces.push_back(text.substr(offset, size));
      offset += size;
    }
    EXPECT_EQ(stream(stops, pieces), whole) << text;
    stopped += whole.stop.has_value() ? 1 : 0;
  }
  EXPECT_GT(stopped, 500u);
  EXPECT_LT(stopped, 3000u);
}

}  // namespace
}  // namespace shoal::text
