#include "serving/gateway.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serving/prompt_tokens.h"
#include "serving/recording_listener.h"

namespace shoal::serving {
namespace {

using ::testing::HasSubstr;

const std::shared_ptr<const ModelCard>& demo_card() {
  static const std::shared_ptr<const ModelCard> card = [] {
    const hub::ModelStore store({std::filesystem::path(SHOAL_SOURCE_DIR) / "models/demo"});
    return *read_model_card(*store.resolve("shoal-demo"));
  }();
  return card;
}

// A gateway whose owner is the test.
class GatewayTest : public ::testing::Test, protected Directory {
 protected:
  struct Sent {
    cluster::NodeId receiver;
    std::string topic;
    Bytes payload;
  };

  GatewayTest()
      : gateway(tasks, static_cast<Directory&>(*this), clock,
                [this](const cluster::NodeId& receiver, std::string_view topic, const Bytes& payload) {
                  sent.push_back({receiver, std::string(topic), payload});
                }) {
    instance.id = "i";
    instance.model = "shoal-demo";
    instance.digest = demo_card()->stored.digest;
    instance.epoch = 4;
    instance.owner = "owner";
    instance.state = cluster::InstanceState::ready;
    instance.context_tokens = 200;
  }
  ~GatewayTest() override { tasks.close(); }

  void find_card(const std::string& model, CardCallback done) override {
    if (model == "shoal-demo" || model == "i") return done(demo_card());
    done(fail(ErrorCode::not_found, "model '" + model + "' is not here", "did you mean 'shoal-demo'?"));
  }
  void ready_instance(const std::string&, std::shared_ptr<const ModelCard>, InstanceCallback done) override {
    if (place_error) return done(std::unexpected(*place_error));
    done(instance);
  }
  std::string node_name(const cluster::NodeId& node) const override { return "name of " + node; }

  void run() {
    io.restart();
    io.run();
  }
  static std::vector<int32_t> tokens_of(std::string_view text) {
    return *demo_card()->tokenizer.encode(
        text, {.add_special_tokens = false, .special_text = text::SpecialText::as_text});
  }
  GenerateRequest request(Prompt prompt = TextPrompt{"What is a shard?"}) {
    GenerateRequest request;
    request.model = "shoal-demo";
    request.prompt = std::move(prompt);
    return request;
  }
  std::shared_ptr<RecordingListener> generate(GenerateRequest given) {
    auto listener = std::make_shared<RecordingListener>();
    id = gateway.generate(std::move(given), listener);
    EXPECT_FALSE(listener->ended()) << "nothing is heard before generate() returned";
    run();
    return listener;
  }
  SubmitMessage submitted() {
    EXPECT_FALSE(sent.empty());
    EXPECT_EQ(sent.back().topic, kSubmitTopic);
    return *SubmitMessage::decode(sent.back().payload);
  }
  // As the owner would: one token a message.
  void answer(const std::vector<int32_t>& tokens, std::optional<scheduler::EndReason> end = std::nullopt,
              uint32_t first = 0) {
    for (size_t index = 0; index < tokens.size(); ++index) {
      clock.advance(milliseconds(5));
      TokensMessage message;
      message.epoch = 4;
      message.request = id;
      message.first_index = first + static_cast<uint32_t>(index);
      message.cached_tokens = 2;
      message.tokens = {{.token = tokens[index], .logprob = -1, .alternatives = {}}};
      if (index + 1 == tokens.size()) message.end = end;
      gateway.on_tokens("owner", *TokensMessage::decode(message.encode()));
    }
  }
  size_t cancels() const {
    return static_cast<size_t>(std::ranges::count(sent, std::string(kCancelTopic), &Sent::topic));
  }

  boost::asio::io_context io;
  TaskPool tasks{io, 2};
  ManualClock clock;
  cluster::InstanceFact instance;
  std::optional<Error> place_error;
  std::vector<Sent> sent;
  GenerationId id = 0;
  Gateway gateway;
};

TEST_F(GatewayTest, TokensBecomeTextAndUsageAddsUp) {
  const auto listener = generate(request());
  const SubmitMessage message = submitted();
  EXPECT_EQ(message.prompt, demo_card()->tokenizer.encode("What is a shard?").value());
  EXPECT_EQ(message.maximum_tokens, 200 - message.prompt.size())
      << "without max_tokens up to the context's end";
  EXPECT_EQ(message.stop_ids, demo_card()->stop_ids);
  EXPECT_FALSE(message.stop_ids.empty());
  std::vector<int32_t> tokens = tokens_of("A shard is a part: naïve 漢字 🐟");
  tokens.push_back(demo_card()->stop_ids.front());
  answer(tokens, scheduler::EndReason::stop);
  EXPECT_EQ(listener->text, "A shard is a part: naïve 漢字 🐟");
  EXPECT_EQ(listener->reason, FinishReason::stop);
  EXPECT_FALSE(listener->stop.has_value());
  EXPECT_EQ(listener->usage.prompt_tokens, message.prompt.size());
  EXPECT_EQ(listener->usage.cached_tokens, 2u);
  EXPECT_EQ(listener->usage.completion_tokens, tokens.size());
  EXPECT_EQ(listener->tokens.size(), tokens.size() - 1) << "the end-of-sequence token is not shown";
  EXPECT_EQ(gateway.running(), 0u);
  EXPECT_EQ(gateway.metrics().completion_tokens, tokens.size());
}

TEST_F(GatewayTest, StopStringAcrossTokensEndsTheAnswerBeforeIt) {
  GenerateRequest wanted = request();
  wanted.stop = {"never", "part of a"};
  const auto listener = generate(wanted);
  answer(tokens_of("A shard is a part of a model, usually some layers"));
  EXPECT_EQ(listener->text, "A shard is a ");
  EXPECT_EQ(listener->reason, FinishReason::stop);
  EXPECT_EQ(listener->stop, "part of a");
  EXPECT_EQ(cancels(), 1u) << "the owner is told to stop";
  EXPECT_EQ(listener->ends, 1);
}

TEST_F(GatewayTest, LengthFlushesWhatWasHeldBackForAStopString) {
  GenerateRequest wanted = request();
  wanted.stop = {"part of a model"};
  wanted.max_tokens = 3;
  const auto listener = generate(wanted);
  EXPECT_EQ(submitted().maximum_tokens, 3u);
  answer(tokens_of("it is part of"), scheduler::EndReason::length);
  EXPECT_EQ(listener->text, "it is part of");
  EXPECT_EQ(listener->reason, FinishReason::length);
  EXPECT_EQ(listener->tokens.size(), tokens_of("it is part of").size());
}

TEST_F(GatewayTest, LogprobsCarryTheTextOfTokens) {
  GenerateRequest wanted = request();
  wanted.logprobs = true;
  const auto listener = generate(wanted);
  answer(tokens_of("A shard"), scheduler::EndReason::length);
  std::string joined;
  for (const TokenText& token : listener->tokens) joined += token.text;
  EXPECT_EQ(joined, "A shard");
}

TEST_F(GatewayTest, ControlTokensInAUsersMessageStayText) {
  ChatPrompt chat;
  chat.messages.push_back(JsonObject{{"role", "user"}, {"content", "hi<|im_end|>"}});
  generate(request(chat));
  const std::vector<int32_t> tokens = submitted().prompt;
  const int32_t end = *demo_card()->tokenizer.find("<|im_end|>");
  EXPECT_EQ(std::ranges::count(tokens, end), 1) << "only the template's own";
}

TEST_F(GatewayTest, DuplicatedTokensAreHarmlessAndLostOnesEndTheAnswer) {
  const auto listener = generate(request());
  answer(tokens_of("A shard"));
  answer(tokens_of("A shard"));
  EXPECT_EQ(listener->text, "A shard");
  answer(tokens_of(" is"), std::nullopt, 50);
  ASSERT_TRUE(listener->error.has_value());
  EXPECT_EQ(listener->error->code, ErrorCode::unavailable);
  EXPECT_EQ(cancels(), 1u);
  answer(tokens_of(" is"));
  EXPECT_EQ(listener->ends, 1);
}

TEST_F(GatewayTest, MessagesOfStrangersAndOldEpochsAreDropped) {
  const auto listener = generate(request());
  const Error error{ErrorCode::internal, "no", ""};
  gateway.on_fail("stranger", {.epoch = 4, .request = id, .error = error});
  gateway.on_fail("owner", {.epoch = 3, .request = id, .error = error});
  gateway.on_fail("owner", {.epoch = 4, .request = id + 1, .error = error});
  EXPECT_FALSE(listener->ended());
  gateway.on_fail("owner", {.epoch = 4, .request = id, .error = error});
  EXPECT_EQ(listener->error->message, "no");
}

TEST_F(GatewayTest, CancelIsSilentAndToldToTheOwner) {
  const auto listener = generate(request());
  answer(tokens_of("A"));
  gateway.cancel(id);
  gateway.cancel(id);
  answer(tokens_of("A shard"));
  EXPECT_FALSE(listener->ended());
  EXPECT_EQ(listener->text, "A");
  EXPECT_EQ(cancels(), 1u);
  EXPECT_EQ(gateway.running(), 0u);
}

TEST_F(GatewayTest, CancelBeforeThePromptIsReadSendsNothing) {
  auto listener = std::make_shared<RecordingListener>();
  gateway.cancel(gateway.generate(request(), listener));
  run();
  EXPECT_TRUE(sent.empty());
  EXPECT_FALSE(listener->ended());
}

TEST_F(GatewayTest, AListenerMayCancelFromWithinItsCallback) {
  const auto listener = generate(request());
  listener->on_piece = [&] { gateway.cancel(id); };
  answer(tokens_of("A shard is"), scheduler::EndReason::length);
  EXPECT_EQ(listener->text, "A");
  EXPECT_FALSE(listener->ended());
}

TEST_F(GatewayTest, NotAcceptedWithinTwoSecondsIsUnavailable) {
  const auto listener = generate(request());
  gateway.tick(clock.now() + milliseconds(1900));
  EXPECT_FALSE(listener->ended());
  gateway.tick(clock.now() + milliseconds(2001));
  ASSERT_TRUE(listener->error.has_value());
  EXPECT_EQ(listener->error->code, ErrorCode::unavailable);
  EXPECT_THAT(listener->error->message, HasSubstr("name of owner"));
}

TEST_F(GatewayTest, AcceptedRequestsMayWaitLong) {
  const auto listener = generate(request());
  gateway.on_accept("owner", {.epoch = 4, .request = id});
  gateway.tick(clock.now() + seconds(60));
  EXPECT_FALSE(listener->ended());
}

TEST_F(GatewayTest, WhateverIsLostOnTheWayEndsItOnce) {
  const Error killed{ErrorCode::internal, "worker killed", ""};
  cluster::InstanceFact later = instance;
  later.epoch = 5;
  cluster::InstanceFact failed = instance;
  failed.state = cluster::InstanceState::failed;
  const std::vector<std::function<void()>> losses = {
      [&] { gateway.node_left("owner"); }, [&] { gateway.instance_changed("i", nullptr, nullptr); },
      [&] { gateway.instance_changed("i", &later, nullptr); },
      [&] { gateway.instance_changed("i", &failed, &killed); },
      [&] { gateway.fail_all({ErrorCode::unavailable, "stopping", ""}); }};
  for (const auto& lose : losses) {
    const auto listener = generate(request());
    gateway.node_left("somebody else");
    gateway.instance_changed("another", nullptr, nullptr);
    gateway.instance_changed("i", &instance, nullptr);
    EXPECT_FALSE(listener->ended());
    lose();
    ASSERT_TRUE(listener->error.has_value());
    EXPECT_EQ(listener->error->code, ErrorCode::unavailable);
    lose();
    answer(tokens_of("late"));
    EXPECT_EQ(listener->ends, 1);
  }
  EXPECT_EQ(gateway.metrics().failed, losses.size());
}

TEST_F(GatewayTest, WrongRequestsAreTypedErrors) {
  GenerateRequest unknown = request();
  unknown.model = "shoal-dmeo";
  EXPECT_EQ(generate(unknown)->error->code, ErrorCode::not_found);
  EXPECT_EQ(generate(request(std::vector<int32_t>{}))->error->code, ErrorCode::invalid_argument);
  EXPECT_EQ(generate(request(std::vector<int32_t>{1, 1 << 20}))->error->code, ErrorCode::invalid_argument);
  EXPECT_EQ(generate(request(std::vector<int32_t>{-1}))->error->code, ErrorCode::invalid_argument);
  GenerateRequest nothing = request();
  nothing.max_tokens = 0;
  EXPECT_EQ(generate(nothing)->error->code, ErrorCode::invalid_argument);
  const auto lengthy = generate(request(std::vector<int32_t>(200, 5)));
  EXPECT_EQ(lengthy->error->code, ErrorCode::limit_exceeded);
  EXPECT_THAT(lengthy->error->message, HasSubstr("This model's maximum context length is 200 tokens"));
  place_error = Error{ErrorCode::out_of_memory, "3 GiB are missing", ""};
  EXPECT_EQ(generate(request())->error->code, ErrorCode::out_of_memory);
  EXPECT_TRUE(sent.empty());
}

}  // namespace
}  // namespace shoal::serving
