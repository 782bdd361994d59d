// Words, flags, tables and streams of the commands, without a node.
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/ask_commands.h"
#include "cli/chat_stream.h"
#include "cli/cluster_watch.h"
#include "cli/command_line.h"
#include "cli/doctor_command.h"
#include "cli/http_client.h"
#include "cli/state_directory.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Outcome {
  int code;
  std::string out, err;
};

Outcome shoal_with(std::vector<const char*> words) {
  words.insert(words.begin(), "shoal");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = run_command_line(static_cast<int>(words.size()), words.data());
  std::fflush(stdout);
  return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

// Exit code, one line on stderr, and what it mentions.
void expect_refused(std::vector<const char*> words, int code, std::string_view mentions) {
  const Outcome outcome = shoal_with(words);
  EXPECT_EQ(outcome.code, code) << words[0];
  EXPECT_TRUE(outcome.err.starts_with("shoal: ")) << outcome.err;
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(mentions));
}

Json json(std::string_view text) {
  const auto parsed = parse_json(text, "test");
  EXPECT_TRUE(parsed) << text;
  return parsed ? *parsed : Json();
}

TEST(CommandLine, MistakesAreOneLineThatNamesTheNearest) {
  expect_refused({"serv"}, 2, "'serve'");
  expect_refused({"nodse"}, 2, "'nodes'");
  expect_refused({"serve", "--prot", "8000"}, 2, "'--port'");
  expect_refused({"ps", "--jsn"}, 2, "'--json'");
  expect_refused({"zzzzzzzzzz"}, 2, "unknown command 'zzzzzzzzzz'");
  expect_refused({"--zzzzzzzz"}, 2, "unknown flag '--zzzzzzzz'");
  expect_refused({"ps", "extra"}, 2, "extra");
}

TEST(CommandLine, MissingAndWrongValuesAreNamed) {
  expect_refused({"logits"}, 2, "PATH");
  expect_refused({"place"}, 2, "MODEL");
  expect_refused({"serve", "--port", "99999"}, 2, "99999");
  expect_refused({"serve", "--port", "x"}, 2, "x");
  expect_refused({"serve", "--memory", "lots"}, 2, "lots");
  expect_refused({"serve", "--min-nodes", "0"}, 2, "0");
  expect_refused({"serve", "--threads", "100000"}, 2, "512");
  expect_refused({"run", "m", "--temperature", "9"}, 2, "9");
}

TEST(CommandLine, EveryCommandHasHelp) {
  const Outcome all = shoal_with({"--help"});
  EXPECT_EQ(all.code, 0);
  EXPECT_THAT(all.out, testing::Not(HasSubstr("worker")));
  for (const char* command : {"serve", "run", "ps", "nodes", "links", "models", "place", "stop", "show",
                              "logits", "tokenize", "detokenize", "render", "doctor"}) {
    EXPECT_THAT(all.out, HasSubstr(command));
    const Outcome help = shoal_with({command, "--help"});
    EXPECT_EQ(help.code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("Usage: shoal"));
    EXPECT_GT(help.out.size(), 60U) << command;
  }
  EXPECT_THAT(shoal_with({"--version"}).out, HasSubstr("shoal "));
}

TEST(CommandLine, NobodyAnsweringSaysWhatToStart) {
  for (std::vector<const char*> words : std::vector<std::vector<const char*>>{
           {"ps"}, {"nodes"}, {"links"}, {"models"}, {"place", "m"}, {"stop", "m"}}) {
    words.insert(words.end(), {"--url", "http://127.0.0.1:9"});
    expect_refused(words, 1, "`shoal serve`");
  }
  expect_refused({"ps", "--url", "https://localhost"}, 1, "http://");
}

TEST(CommandLine, FlagsComeBeforeTheEnvironmentAndThatBeforeTheFile) {
  const auto file = std::filesystem::path(testing::TempDir()) / "shoal-config.toml";
  ASSERT_TRUE(write_file_atomically(file, as_bytes("[ps]\nurl = \"http://127.0.0.1:11\"\n")));
  const std::string config = "--config=" + file.string();
  EXPECT_THAT(shoal_with({config.c_str(), "ps"}).err, HasSubstr("http://127.0.0.1:11"));
  ::setenv("SHOAL_URL", "http://127.0.0.1:12", 1);
  EXPECT_THAT(shoal_with({config.c_str(), "ps"}).err, HasSubstr("http://127.0.0.1:12"));
  EXPECT_THAT(shoal_with({config.c_str(), "ps", "--url", "http://127.0.0.1:13"}).err,
              HasSubstr("http://127.0.0.1:13"));
  ::unsetenv("SHOAL_URL");
  ASSERT_TRUE(write_file_atomically(file, as_bytes("[ps]\nurll = \"x\"\n")));
  expect_refused({config.c_str(), "ps"}, 2, "urll");
  std::filesystem::remove(file);
}

TEST(NodeUrl, TakesWhatPeopleWrite) {
  const auto parts = [](std::string_view url) {
    const auto parsed = parse_node_url(url);
    EXPECT_TRUE(parsed) << url;
    return parsed ? parsed->host + "|" + parsed->port + "|" + parsed->path_prefix : std::string();
  };
  EXPECT_EQ(parts("http://localhost:8000"), "localhost|8000|");
  EXPECT_EQ(parts("box"), "box|8000|");
  EXPECT_EQ(parts("http://box:81/shoal/"), "box|81|/shoal");
  EXPECT_EQ(parts("http://[::1]:81"), "::1|81|");
  for (std::string_view wrong :
       {"", "http://", "http://:80", "http://a:99999", "http://a:x", "https://a", "http://a b"}) {
    EXPECT_FALSE(parse_node_url(wrong)) << wrong;
  }
}

TEST(Table, AlignsByCharactersAndDropsTrailingSpace) {
  Table table({{"NAME"}, {"N", Table::Align::right}, {"X"}});
  table.add({"é", "1", "-"});
  table.add({"longer", "100", ""});
  EXPECT_EQ(table.text(), "NAME      N  X\né         1  -\nlonger  100\n");
}

TEST(Terminal, ShowsControlCharactersAsSpaces) {
  EXPECT_EQ(printable("a\x1b[31mb\n\x7f\xc2\x9b"
                      "c"),
            "a [31mb   c");
  EXPECT_EQ(printable("Zo\xc3\xab \xc2\xb7 \xe6\x97\xa5"), "Zo\xc3\xab \xc2\xb7 \xe6\x97\xa5");
}

TEST(Progress, BarsAreBounded) {
  EXPECT_EQ(progress_bar(0.5, 4), "[##--]  50 %");
  EXPECT_EQ(progress_bar(7, 2), "[##] 100 %");
  EXPECT_EQ(progress_bar(-1, 2), "[--]   0 %");
}

constexpr std::string_view kCluster = R"({"self":"aa","cluster":"shoal",
  "nodes":[{"id":"aa","name":"ada","cpu":"C","cores":4,"free_memory_bytes":1073741824,"total_memory_bytes":2147483648,
            "decode_bytes_per_second":1.5e10,"prefill_flops_per_second":2e11,"addresses":["10.0.0.1"],
            "models":[{"name":"m"}],"workers":[{"instance":"i1","state":"loaded","progress":1}]},
           {"id":"bb","name":"bob","workers":[{"instance":"i1","state":"loading","progress":0.5}]}],
  "instances":[{"id":"i1","model":"m","state":"loading","context_tokens":2048,"predicted_tokens_per_second":12.34,
                "stages":[{"node_name":"ada","first_layer":0,"end_layer":4},{"node_name":"bob","first_layer":4,"end_layer":8}]}]})";

TEST(Tables, ShowClustersAndTakeAnyJson) {
  const Json cluster = json(kCluster);
  EXPECT_THAT(nodes_table(cluster), HasSubstr("ada *"));
  EXPECT_THAT(nodes_table(cluster), HasSubstr("1.0 GiB"));
  EXPECT_THAT(nodes_table(cluster), HasSubstr("15.0"));
  EXPECT_THAT(instances_table(cluster), HasSubstr("ada 0-3, bob 4-7"));
  EXPECT_THAT(instances_table(cluster), HasSubstr("loading 75 %"));
  EXPECT_EQ(loading_progress(cluster, "m"), 0.75);
  EXPECT_EQ(loading_progress(cluster, "other"), std::nullopt);
  for (std::string_view odd :
       {"{}", "[]", "5", R"({"nodes":5,"instances":{}})",
        R"({"nodes":[5],"instances":[null,{"stages":[7],"error":1}]})",
        R"({"placements":[{"stages":[{"first_layer":"x"}],"reasons":[1]}],"data":[1]})"}) {
    const Json value = json(odd);
    EXPECT_FALSE(nodes_table(value).empty());
    EXPECT_FALSE(instances_table(value).empty());
    EXPECT_FALSE(models_table(value).empty());
    EXPECT_FALSE(placements_text(value).empty());
    EXPECT_FALSE(instance_text(value).empty());
    ClusterWatch().look(value);
  }
}

TEST(Tables, NamesOfOtherNodesCannotSteerTheTerminal) {
  const Json cluster = json(R"({"self":"aa","nodes":[{"id":"bb","name":"b\u001b[2Jo\nb"}]})");
  EXPECT_THAT(nodes_table(cluster), HasSubstr("b [2Jo b"));
  EXPECT_THAT(ClusterWatch().look(cluster), ElementsAre(HasSubstr("b [2Jo b joined")));
}

TEST(Tables, PreviewsShowStagesAndReasons) {
  const std::string text = placements_text(json(
      R"({"placements":[{"stages":[{"node_name":"ada","first_layer":0,"end_layer":8,"memory_bytes":1048576,"decode_milliseconds":0.5}],
          "context_tokens":512,"predicted_tokens_per_second":99.5,"predicted_first_token_seconds":0.25,"reasons":["left out: bob"]}]})"));
  EXPECT_THAT(text, HasSubstr("99.5 tok/s"));
  EXPECT_THAT(text, HasSubstr("0-7"));
  EXPECT_THAT(text, HasSubstr("- left out: bob"));
}

TEST(ClusterWatch, SaysWhatChanged) {
  ClusterWatch watch;
  const auto first = watch.look(json(kCluster));
  ASSERT_EQ(first.size(), 2U);
  EXPECT_THAT(first[0], HasSubstr("bob joined"));
  EXPECT_THAT(first[1], HasSubstr("loading m"));
  EXPECT_TRUE(watch.look(json(kCluster)).empty());
  EXPECT_THAT(
      watch.look(json(
          R"({"self":"aa","nodes":[{"id":"aa","name":"ada"}],"instances":[{"id":"i1","model":"m","state":"failed","error":{"message":"bob left"}}]})")),
      ElementsAre("- bob left", "  m failed: bob left"));
}

TEST(Tables, InstancesThatWereStoppedAreLeftOutAndFailuresAreTold) {
  const auto with_state = [](std::string_view state) {
    return json(fmt::format(
        R"({{"instances":[{{"id":"i1","model":"m","state":"{}","error":{{"message":"bob left"}}}}]}})",
        state));
  };
  EXPECT_THAT(instances_table(with_state("failed")), HasSubstr("failed: bob left"));
  EXPECT_THAT(instances_table(with_state("stopped")), HasSubstr("no model is being served"));
}

TEST(ChatStream, ReadsEventsCutAnywhere) {
  const std::string events =
      "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\ndata: "
      "{\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\n\n: comment\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: "
      "{\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
  for (size_t step : {size_t{1}, size_t{7}, events.size()}) {
    std::string heard;
    ChatStream stream([&](std::string_view text) { heard += text; });
    for (size_t i = 0; i < events.size(); i += step) stream.feed(std::string_view(events).substr(i, step));
    EXPECT_EQ(heard, "Hé");
    EXPECT_EQ(stream.answer(), "Hé");
    EXPECT_EQ(stream.finish_reason(), "stop");
    EXPECT_EQ(stream.completion_tokens(), 3U);
    EXPECT_FALSE(stream.error());
  }
  ChatStream broken([](std::string_view) {});
  broken.feed("data: {\"error\":{\"message\":\"worker lost\"}}\n\n");
  EXPECT_EQ(broken.error()->message, "worker lost");
}

TEST(StateDirectory, KeepsTheIdAndLetsOneNodeIn) {
  const auto directory = std::filesystem::path(testing::TempDir()) / "shoal-state-test";
  std::filesystem::remove_all(directory);
  std::string id;
  {
    const auto first = StateDirectory::open(directory);
    ASSERT_TRUE(first) << first.error().text();
    id = first->node_id();
    EXPECT_EQ(id.size(), 16U);
    const auto second = StateDirectory::open(directory);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::conflict);
  }
  EXPECT_EQ(StateDirectory::open(directory)->node_id(), id);
  ASSERT_TRUE(write_file_atomically(directory / "node-id", as_bytes("damaged")));
  EXPECT_EQ(StateDirectory::open(directory)->node_id().size(), 16U);
  EXPECT_EQ(StateDirectory::open("/proc/nowhere").error().code, ErrorCode::io);
  std::filesystem::remove(directory / "node-id");
  std::filesystem::create_directory(directory / "node-id.partial");  // nothing can be written there
  const auto unwritable = StateDirectory::open(directory);
  ASSERT_FALSE(unwritable);
  EXPECT_THAT(unwritable.error().hint, HasSubstr("--data DIR"));
  std::filesystem::remove_all(directory);
}

TEST(Doctor, ChecksHaveAStatusAndHintsWhereNeeded) {
  const auto checks = run_checks({.port = 0, .data_directory = testing::TempDir(), .json = false});
  EXPECT_GT(checks.size(), 5U);
  for (const Check& check : checks) {
    EXPECT_FALSE(check.message.empty()) << check.name;
    EXPECT_EQ(check.hint.empty(), check.status == CheckStatus::ok) << check.name;
  }
}

}  // namespace
}  // namespace shoal::cli
