#include "serving/node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serving/fake_parts.h"
#include "serving/recording_listener.h"

namespace shoal::serving {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kPlenty = 8ull << 30;
constexpr uint64_t kTooLittle = 1 << 20;
const cluster::NodeId kA = "aaaaaaaaaaaaaaaa";
const cluster::NodeId kB = "bbbbbbbbbbbbbbbb";

// Two nodes in one loop: A, which has memory, and B.
class NodeTest : public ::testing::Test {
 protected:
  NodeTest() : network(io), port_a(network, kA), port_b(network, kB) {
    const hub::ModelStore store({std::filesystem::path(SHOAL_SOURCE_DIR) / "models/demo"});
    card = *read_model_card(*store.resolve("shoal-demo"));
  }
  ~NodeTest() override {
    if (b) b->stop();
    if (a) a->stop();
    io.restart();
    io.poll();
  }

  static inline const std::filesystem::path kModels = std::filesystem::path(SHOAL_SOURCE_DIR) / "models/demo";

  NodeOptions options(std::string name, uint64_t memory_bytes,
                      const std::filesystem::path& models = kModels) {
    NodeOptions options;
    options.name = std::move(name);
    options.model_roots = {models};
    options.memory_bytes = memory_bytes;
    options.listen_addresses = {"127.0.0.1"};
    options.figures = MachineFigures{10e9, 100e9};
    options.worker_factory = workers.factory();
    return options;
  }
  void start(uint64_t memory_a, uint64_t memory_b, const std::filesystem::path& models_b = kModels) {
    a = std::make_unique<Node>(io, options("alpha", memory_a), port_a);
    b = std::make_unique<Node>(io, options("beta", memory_b, models_b), port_b);
    const size_t expected = models_b == kModels ? 2 : 1;
    ASSERT_TRUE(a->start().has_value());
    ASSERT_TRUE(b->start().has_value());
    ASSERT_TRUE(run_until([&] {
      return node_count(*a) == 2 && node_count(*b) == 2 && holders(*a) == expected && holders(*b) == expected;
    })) << to_pretty_text(b->cluster());
  }
  template <class Condition>
  bool run_until(Condition condition) {
    const SystemClock clock;
    const TimePoint deadline = clock.now() + seconds(20);
    while (!condition()) {
      if (clock.now() > deadline) return false;
      if (io.stopped()) io.restart();
      io.run_one_for(milliseconds(20));
    }
    return true;
  }
  void settle() {
    const SystemClock clock;
    const TimePoint end = clock.now() + milliseconds(200);
    while (clock.now() < end) io.run_one_for(milliseconds(20));
  }
  static size_t node_count(const Node& node) { return node.cluster().at("nodes").as_array().size(); }
  static size_t holders(const Node& node) {
    size_t count = 0;
    const Json cluster = node.cluster();
    for (const Json& entry : cluster.at("nodes").as_array()) count += !entry.at("models").as_array().empty();
    return count;
  }
  static JsonArray instances(const Node& node) { return node.cluster().at("instances").as_array(); }

  // Makes the workers answer this prompt with these words, then the end.
  GenerateRequest scripted(std::string_view answer) {
    GenerateRequest request;
    request.model = "shoal-demo";
    request.prompt = TextPrompt{"What is a shard?"};
    const size_t prompt = card->tokenizer.encode("What is a shard?")->size();
    const std::vector<int32_t> script = *card->tokenizer.encode(answer, {.add_special_tokens = false});
    workers.choose = [prompt, script, end = card->stop_ids.front()](std::span<const int32_t> history,
                                                                    uint64_t) {
      const size_t index = history.size() - prompt;
      return index < script.size() ? script[index] : end;
    };
    return request;
  }
  std::shared_ptr<RecordingListener> generate(Node& node, GenerateRequest request) {
    auto listener = std::make_shared<RecordingListener>();
    id = node.generate(std::move(request), listener);
    return listener;
  }
  GenerateRequest endless() {
    GenerateRequest request = scripted("");
    workers.choose = [](std::span<const int32_t> history, uint64_t) {
      return static_cast<int32_t>(300 + history.size() % 100);
    };
    return request;
  }
  static double metric(const Node& node, const std::string& name) {
    const std::string text = node.metrics();
    const size_t at = text.find("\n" + name);
    if (at == std::string::npos) return -1;
    return std::stod(text.substr(text.find(' ', at + 1)));
  }

  boost::asio::io_context io;
  FakeNetwork network;
  FakeNetwork::Port port_a, port_b;
  FakeWorkers workers;
  std::shared_ptr<const ModelCard> card;
  std::unique_ptr<Node> a, b;
  GenerationId id = 0;
};

TEST_F(NodeTest, ARequestAtOneNodeIsPlacedAndAnsweredByAnother) {
  start(kPlenty, kTooLittle);
  const auto listener = generate(*b, scripted("A shard is a part of a model."));
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  ASSERT_FALSE(listener->error.has_value()) << listener->error->text();
  EXPECT_EQ(listener->text, "A shard is a part of a model.");
  EXPECT_EQ(listener->reason, FinishReason::stop);
  EXPECT_EQ(listener->usage.prompt_tokens, card->tokenizer.encode("What is a shard?")->size());
  ASSERT_EQ(instances(*b).size(), 1u);
  const Json instance = instances(*b)[0];
  EXPECT_EQ(instance.at("owner_name").as_string(), "alpha");
  EXPECT_EQ(instance.at("state").as_string(), "ready");
  EXPECT_EQ(metric(*b, "shoal_requests_total{outcome=\"stop\"}"), 1);
  EXPECT_EQ(metric(*a, "shoal_kv_pages_used"), 0);
  EXPECT_TRUE(b->models()[0].served);
  // The second time it is there, whoever is asked.
  const auto again = generate(*a, scripted("Yes."));
  ASSERT_TRUE(run_until([&] { return again->ended(); }));
  EXPECT_EQ(again->text, "Yes.");
  EXPECT_EQ(workers.started, 1u);
}

TEST_F(NodeTest, ManyRequestsForAModelThatIsNotUpArePlacedOnce) {
  start(kPlenty, kTooLittle);
  std::vector<std::shared_ptr<RecordingListener>> all;
  for (int i = 0; i < 10; ++i) all.push_back(generate(*b, scripted("Yes.")));
  ASSERT_TRUE(
      run_until([&] { return std::ranges::all_of(all, [](const auto& one) { return one->ended(); }); }));
  for (const auto& one : all) EXPECT_EQ(one->text, "Yes.") << (one->error ? one->error->text() : "");
  EXPECT_EQ(instances(*a).size(), 1u);
  EXPECT_EQ(workers.started, 1u);
}

TEST_F(NodeTest, EveryMessageTwiceChangesNothing) {
  network.twice = true;
  start(kPlenty, kTooLittle);
  const auto listener = generate(*b, scripted("A shard is a part of a model."));
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  settle();
  EXPECT_EQ(listener->text, "A shard is a part of a model.");
  EXPECT_EQ(listener->ends, 1);
}

TEST_F(NodeTest, PlacesOverTwoNodesAndReportsIt) {
  start(kPlenty, kPlenty);
  std::optional<Result<Json>> placed;
  a->place({.model = "shoal-demo", .preview = true, .minimum_nodes = 2, .context_tokens = 512},
           [&](Result<Json> json) { placed = std::move(json); });
  ASSERT_TRUE(run_until([&] { return placed.has_value(); }));
  ASSERT_TRUE(placed->has_value()) << placed->error().text();
  EXPECT_EQ((*placed)->at("placements").as_array()[0].at("stages").as_array().size(), 2u);
  EXPECT_TRUE(instances(*a).empty()) << "a preview starts nothing";
  placed.reset();
  a->place({.model = "shoal-demo", .preview = false, .minimum_nodes = 2, .context_tokens = 512},
           [&](Result<Json> json) { placed = std::move(json); });
  ASSERT_TRUE(run_until([&] { return placed.has_value(); }));
  ASSERT_TRUE(placed->has_value()) << placed->error().text();
  EXPECT_EQ((*placed)->at("state").as_string(), "ready");
  EXPECT_EQ((*placed)->at("context_tokens").to_number<int>(), 512);
  EXPECT_EQ(workers.started, 2u);
  const auto listener = generate(*b, scripted("Over two nodes."));
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  EXPECT_EQ(listener->text, "Over two nodes.") << (listener->error ? listener->error->text() : "");

  std::optional<Result<Json>> stopped;
  b->stop_instance("shoal-demo:latest", [&](Result<Json> json) { stopped = std::move(json); });
  ASSERT_TRUE(run_until([&] { return stopped.has_value(); }));
  EXPECT_TRUE(stopped->has_value()) << stopped->error().text();
  ASSERT_TRUE(run_until([&] { return workers.running.empty(); }));
}

TEST_F(NodeTest, AModelNamedByPathIsPlacedOverNodesThatFindItToo) {
  start(kPlenty, kPlenty, std::filesystem::temp_directory_path() / "shoal-no-models");
  std::optional<Result<Json>> placed;
  a->place({.model = std::filesystem::absolute(kModels / "shoal-demo-q8_0.gguf").string(),
            .preview = false,
            .minimum_nodes = 2,
            .context_tokens = {}},
           [&](Result<Json> json) { placed = std::move(json); });
  ASSERT_TRUE(run_until([&] { return placed.has_value(); }));
  ASSERT_TRUE(placed->has_value()) << placed->error().text();
  EXPECT_EQ((*placed)->at("stages").as_array().size(), 2u);
}

TEST_F(NodeTest, ANodeThatDoesNotAnswerIsNotWaitedForLong) {
  start(kPlenty, kPlenty, std::filesystem::temp_directory_path() / "shoal-no-models");
  std::optional<Result<Json>> placed;
  network.dropped_topics = {std::string(kSeekTopic)};
  a->place({.model = std::filesystem::absolute(kModels / "shoal-demo-q8_0.gguf").string(),
            .preview = false,
            .minimum_nodes = 1,
            .context_tokens = {}},
           [&](Result<Json> json) { placed = std::move(json); });
  ASSERT_TRUE(run_until([&] { return placed.has_value(); }));
  ASSERT_TRUE(placed->has_value()) << placed->error().text();
  EXPECT_EQ((*placed)->at("stages").as_array().size(), 1u);
}

TEST_F(NodeTest, CancelFreesTheSequenceAtTheOwner) {
  start(kPlenty, kTooLittle);
  const auto listener = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return listener->tokens.size() > 5; }));
  EXPECT_EQ(metric(*a, "shoal_active_sequences"), 1);
  b->cancel(id);
  const size_t told = listener->tokens.size();
  ASSERT_TRUE(run_until([&] { return metric(*a, "shoal_active_sequences") == 0; }));
  settle();
  EXPECT_EQ(listener->tokens.size(), told);
  EXPECT_FALSE(listener->ended());
  EXPECT_EQ(metric(*a, "shoal_kv_pages_used"), 0);
}

TEST_F(NodeTest, AVanishingOwnerEndsItsRequestsWithATypedError) {
  start(kPlenty, kTooLittle);
  const auto listener = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return listener->tokens.size() > 5; }));
  network.cut(kA);
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  ASSERT_TRUE(listener->error.has_value());
  EXPECT_EQ(listener->error->code, ErrorCode::unavailable);
  EXPECT_THAT(listener->error->message, HasSubstr("alpha"));
  settle();
}

TEST_F(NodeTest, ALeavingGatewayFreesItsSequences) {
  start(kPlenty, kTooLittle);
  const auto listener = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return listener->tokens.size() > 5; }));
  network.cut(kB);
  ASSERT_TRUE(run_until([&] { return metric(*a, "shoal_active_sequences") == 0; }));
  EXPECT_EQ(metric(*a, "shoal_kv_pages_used"), 0);
  b->stop();
  EXPECT_EQ(listener->error->code, ErrorCode::unavailable);
}

TEST_F(NodeTest, AKilledWorkerEndsRequestsAndTheNextOneIsPlacedAnew) {
  start(kPlenty, kTooLittle);
  const auto listener = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return listener->tokens.size() > 5; }));
  workers.kill_all(io);
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  ASSERT_TRUE(listener->error.has_value());
  EXPECT_EQ(listener->error->code, ErrorCode::unavailable);
  EXPECT_THAT(listener->error->text(), HasSubstr("signal 9"));
  const auto again = generate(*b, scripted("Here again."));
  ASSERT_TRUE(run_until([&] { return again->ended(); }));
  EXPECT_EQ(again->text, "Here again.") << (again->error ? again->error->text() : "");
}

TEST_F(NodeTest, AWorkerThatCannotLoadEndsThePlacementWithItsReason) {
  start(kPlenty, kTooLittle);
  workers.refuse_to_load = Error{ErrorCode::unsupported, "tensor type Q2_K is not supported", ""};
  const auto listener = generate(*b, scripted("No."));
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  ASSERT_TRUE(listener->error.has_value());
  EXPECT_THAT(listener->error->text(), HasSubstr("Q2_K"));
}

TEST_F(NodeTest, AModelThatFitsNowhereIsOneClearError) {
  start(kTooLittle, kTooLittle);
  const auto listener = generate(*b, scripted("No."));
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  ASSERT_TRUE(listener->error.has_value());
  EXPECT_EQ(listener->error->code, ErrorCode::out_of_memory);
  EXPECT_THAT(listener->error->message, HasSubstr("shoal-demo"));
  EXPECT_EQ(workers.started, 0u);
}

TEST_F(NodeTest, UnknownModelsAndInstancesHintAtNearOnes) {
  start(kPlenty, kTooLittle);
  GenerateRequest request = scripted("No.");
  request.model = "shoal-dmeo";
  const auto listener = generate(*b, request);
  ASSERT_TRUE(run_until([&] { return listener->ended(); }));
  EXPECT_EQ(listener->error->code, ErrorCode::not_found);
  EXPECT_EQ(listener->error->hint, "did you mean 'shoal-demo'?");
  std::optional<Result<Json>> stopped;
  b->stop_instance("nothing", [&](Result<Json> json) { stopped = std::move(json); });
  ASSERT_TRUE(stopped.has_value());
  EXPECT_EQ(stopped->error().code, ErrorCode::not_found);
}

TEST_F(NodeTest, ANodeWithoutTheModelPassesRequestsOn) {
  start(kPlenty, kPlenty, "/nowhere");
  for (const bool twice : {false, true}) {
    network.twice = twice;
    GenerateRequest request = scripted("A shard is a part of a model.");
    request.stop = {" of a"};
    const auto listener = generate(*b, request);
    ASSERT_TRUE(run_until([&] { return listener->ended(); }));
    EXPECT_EQ(listener->text, "A shard is a part") << (listener->error ? listener->error->text() : "");
    EXPECT_EQ(listener->stop, " of a");
    EXPECT_GT(listener->usage.completion_tokens, 0u);
    settle();
    EXPECT_EQ(listener->ends, 1);
  }
  EXPECT_EQ(workers.started, 1u);
  network.twice = false;

  const auto wrong = generate(*b, [&] {
    GenerateRequest request = scripted("No.");
    request.prompt = std::vector<int32_t>{-5};
    return request;
  }());
  ASSERT_TRUE(run_until([&] { return wrong->ended(); }));
  EXPECT_EQ(wrong->error->code, ErrorCode::invalid_argument);

  const auto cancelled = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return cancelled->tokens.size() > 5; }));
  b->cancel(id);
  ASSERT_TRUE(run_until([&] { return metric(*a, "shoal_active_sequences") == 0; }));
  EXPECT_FALSE(cancelled->ended());

  const auto lost = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return lost->tokens.size() > 5; }));
  network.cut(kA);
  ASSERT_TRUE(run_until([&] { return lost->ended(); }));
  EXPECT_EQ(lost->error->code, ErrorCode::unavailable);
}

TEST_F(NodeTest, ANodeWithoutTheModelCanHaveItPlacedAndWhoLeavesFreesWhatItAskedFor) {
  start(kPlenty, kPlenty, "/nowhere");
  for (const bool preview : {true, false}) {
    std::optional<Result<Json>> placed;
    b->place({.model = "shoal-demo:latest", .preview = preview, .minimum_nodes = 1, .context_tokens = {}},
             [&](Result<Json> json) { placed = std::move(json); });
    ASSERT_TRUE(run_until([&] { return placed.has_value(); }));
    ASSERT_TRUE(placed->has_value()) << placed->error().text();
  }
  std::optional<Result<Json>> refused;
  b->place({.model = "shoal-demo", .preview = true, .minimum_nodes = 1, .context_tokens = 1 << 20},
           [&](Result<Json> json) { refused = std::move(json); });
  ASSERT_TRUE(run_until([&] { return refused.has_value(); }));
  EXPECT_EQ(refused->error().code, ErrorCode::invalid_argument);
  const auto listener = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return listener->tokens.size() > 5; }));
  network.cut(kB);
  ASSERT_TRUE(run_until([&] { return metric(*a, "shoal_active_sequences") == 0; }));
}

TEST_F(NodeTest, StoppingANodeEndsItsGenerations) {
  start(kPlenty, kTooLittle);
  workers.hold_results = true;
  const auto listener = generate(*a, endless());
  const auto remote = generate(*b, endless());
  const auto known = [&] { return metric(*a, "shoal_active_sequences") + metric(*a, "shoal_queue_depth"); };
  ASSERT_TRUE(run_until([&] { return known() == 2; }));  // in one step or two
  a->stop();
  EXPECT_EQ(listener->error->code, ErrorCode::unavailable);
  ASSERT_TRUE(run_until([&] { return remote->ended(); }));
  EXPECT_EQ(remote->error->code, ErrorCode::unavailable);
  const auto late = generate(*a, endless());
  ASSERT_TRUE(run_until([&] { return late->ended(); }));
  EXPECT_EQ(late->error->code, ErrorCode::unavailable);
}

TEST_F(NodeTest, StoppingANodeEndsWhatItAskedOthersFor) {
  start(kPlenty, kPlenty, "/nowhere");
  workers.hold_results = true;
  const auto listener = generate(*b, endless());
  ASSERT_TRUE(run_until([&] { return metric(*a, "shoal_active_sequences") == 1; }));
  network.dropped_topics = {std::string(kPlacedTopic), std::string(kSeekTopic)};
  std::optional<Result<Json>> elsewhere, by_path;
  b->place({.model = "shoal-demo", .preview = true, .minimum_nodes = 1, .context_tokens = {}},
           [&](Result<Json> json) { elsewhere = std::move(json); });
  const std::string path = std::filesystem::absolute(kModels / "shoal-demo-q8_0.gguf").string();
  b->place({.model = path, .preview = false, .minimum_nodes = 1, .context_tokens = {}},
           [&](Result<Json> json) { by_path = std::move(json); });
  ASSERT_TRUE(run_until([&] { return to_text(b->cluster()).contains(path); })) << "it begins to look for it";
  b->stop();
  EXPECT_EQ(listener->ends, 1);
  ASSERT_TRUE(elsewhere.has_value() && by_path.has_value());
  EXPECT_FALSE(elsewhere->has_value() || by_path->has_value());
  ASSERT_TRUE(run_until([&] { return metric(*a, "shoal_active_sequences") == 0; }));
}

}  // namespace
}  // namespace shoal::serving
