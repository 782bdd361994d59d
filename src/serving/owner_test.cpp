#include "serving/owner.h"

#include <deque>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/fake_world.h"

namespace shoal::serving {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kVocabulary = 50;

// An owner with two stages, its worker, and what gateways hear.
class Owned {
 public:
  explicit Owned(uint32_t state_slots = 0, uint32_t long_after_tokens = 0)
      : owner(instance(state_slots), {.vocabulary_size = kVocabulary, .long_after_tokens = long_after_tokens},
              clock,
              {.submit_step = [this](const runtime::Step& step) { results.push_back(world.run(step)); },
               .send = [this](const cluster::NodeId& receiver, std::string_view topic,
                              const Bytes& payload) { hear(receiver, topic, payload); }}),
        world(4, 64, kVocabulary, {}, {.state_slots = state_slots, .long_after_tokens = long_after_tokens}) {}

  static cluster::InstanceFact instance(uint32_t state_slots) {
    cluster::InstanceFact fact;
    fact.id = "i";
    fact.epoch = 2;
    fact.ranks = {{.node = "a", .first_layer = 0, .end_layer = 1},
                  {.node = "b", .first_layer = 1, .end_layer = 2}};
    fact.context_tokens = 100;
    fact.kv_page_tokens = 4;
    fact.kv_page_count = 64;
    fact.state_slots = state_slots;
    return fact;
  }
  static SubmitMessage request(RequestId id, uint32_t maximum_tokens = 3) {
    SubmitMessage message;
    message.instance = "i";
    message.epoch = 2;
    message.request = id;
    message.prompt = {1, 2, static_cast<int32_t>(id % kVocabulary)};
    message.maximum_tokens = maximum_tokens;
    return message;
  }
  bool step() {
    if (results.empty()) return false;
    const runtime::StepResult result = results.front();
    results.pop_front();
    clock.advance(milliseconds(10));
    EXPECT_TRUE(owner.on_step_result(result).has_value());
    return true;
  }
  void finish() {
    while (step()) {
    }
  }

  ManualClock clock;
  std::deque<runtime::StepResult> results;
  std::map<std::pair<cluster::NodeId, RequestId>, std::vector<int32_t>> tokens;
  std::map<std::pair<cluster::NodeId, RequestId>, int> ends;
  std::vector<AcceptMessage> accepts;
  std::vector<FailMessage> failures;
  InstanceOwner owner;
  scheduler::FakeWorld world;

 private:
  void hear(const cluster::NodeId& receiver, std::string_view topic, const Bytes& payload) {
    if (topic == kAcceptTopic) accepts.push_back(*AcceptMessage::decode(payload));
    if (topic == kFailTopic) failures.push_back(*FailMessage::decode(payload));
    if (topic != kTokensTopic) return;
    const TokensMessage message = *TokensMessage::decode(payload);
    std::vector<int32_t>& answer = tokens[{receiver, message.request}];
    EXPECT_EQ(message.first_index, answer.size());
    for (const runtime::SampledToken& token : message.tokens) answer.push_back(token.token);
    ends[{receiver, message.request}] += message.end.has_value();
  }
};

TEST(InstanceOwner, ServesRequestsOfSeveralGatewaysWithTheSameIds) {
  Owned owned;
  owned.owner.submit("a", Owned::request(1));
  owned.owner.submit("b", Owned::request(1, 5));
  owned.finish();
  EXPECT_EQ(owned.accepts.size(), 2u);
  EXPECT_EQ((owned.tokens[{"a", 1}].size()), 3u);
  EXPECT_EQ((owned.tokens[{"b", 1}].size()), 5u);
  EXPECT_EQ((owned.ends[{"a", 1}]), 1);
  EXPECT_EQ((owned.ends[{"b", 1}]), 1);
  EXPECT_EQ(owned.owner.metrics().pages_used, 0u);
  EXPECT_NEAR(owned.owner.figures().tokens_per_second, 100, 60);
}

TEST(InstanceOwner, ARequestToldTwiceRunsOnce) {
  Owned owned;
  owned.owner.submit("a", Owned::request(1));
  owned.owner.submit("a", Owned::request(1));
  owned.finish();
  EXPECT_EQ((owned.tokens[{"a", 1}].size()), 3u);
  EXPECT_EQ(owned.accepts.size(), 2u);
  owned.owner.submit("a", Owned::request(1));
  owned.finish();
  EXPECT_EQ((owned.tokens[{"a", 1}].size()), 3u) << "told again after its end";
}

// The world counts the sequences it knows, and sees to it that each continues its own state.
TEST(InstanceOwner, NoMoreSequencesRunThanHaveStates) {
  Owned owned(2);
  for (RequestId id = 1; id <= 7; ++id) owned.owner.submit("g", Owned::request(id));
  EXPECT_EQ(owned.owner.metrics().active, 2u);
  owned.finish();
  for (RequestId id = 1; id <= 7; ++id) EXPECT_EQ(owned.tokens[std::pair("g", id)].size(), 3u);
}

TEST(InstanceOwner, LongPromptsShareNoPagesWithOthers) {
  Owned owned(0, 20);
  SubmitMessage first = Owned::request(1), second = Owned::request(2), third = Owned::request(3);
  first.prompt.assign(20, 7);
  second.prompt.assign(21, 7);
  third.prompt.assign(30, 7);
  for (const SubmitMessage& message : {first, second, third}) {
    owned.owner.submit("g", message);
    owned.finish();
  }
  EXPECT_EQ(owned.owner.metrics().cached_prompt_tokens, 20u);  // the third's, of the second
}

TEST(InstanceOwner, ResumedRequestGoesOnWhereItsTokensEnd) {
  Owned whole;
  whole.owner.submit("a", Owned::request(9, 8));
  whole.finish();
  const std::vector<int32_t> answer = whole.tokens[{"a", 9}];
  Owned resumed;
  SubmitMessage rest = Owned::request(9, 8);
  rest.committed.assign(answer.begin(), answer.begin() + 5);
  resumed.tokens[{"a", 9}] = rest.committed;
  resumed.owner.submit("a", rest);
  resumed.finish();
  EXPECT_EQ((resumed.tokens[{"a", 9}]), answer);
}

TEST(InstanceOwner, RefusesOtherEpochsForeignTokensAndTooLongPrompts) {
  Owned owned;
  SubmitMessage old = Owned::request(1);
  old.epoch = 1;
  owned.owner.submit("a", old);
  SubmitMessage foreign = Owned::request(2);
  foreign.prompt.push_back(kVocabulary);
  owned.owner.submit("a", foreign);
  SubmitMessage lengthy = Owned::request(3);
  lengthy.prompt.assign(100, 1);
  owned.owner.submit("a", lengthy);
  ASSERT_EQ(owned.failures.size(), 3u);
  EXPECT_EQ(owned.failures[0].error.code, ErrorCode::unavailable);
  EXPECT_EQ(owned.failures[0].epoch, 1u) << "answered in the asker's epoch";
  EXPECT_EQ(owned.failures[1].error.code, ErrorCode::invalid_argument);
  EXPECT_EQ(owned.failures[2].error.code, ErrorCode::limit_exceeded);
  EXPECT_THAT(owned.failures[2].error.message, HasSubstr("maximum context length is 100"));
  EXPECT_TRUE(owned.results.empty()) << "nothing reached the worker";
}

TEST(InstanceOwner, CancelAndALeavingGatewayFreeTheirSequences) {
  Owned owned;
  owned.owner.submit("a", Owned::request(1, 50));
  owned.owner.submit("b", Owned::request(1, 50));
  owned.owner.submit("b", Owned::request(2, 50));
  for (int i = 0; i < 6; ++i) owned.step();
  owned.owner.cancel("a", 1);
  owned.owner.cancel("a", 77);  // unknown: harmless
  const size_t told = owned.tokens[{"a", 1}].size();
  owned.owner.gateway_left("b");
  EXPECT_EQ(owned.owner.metrics().active, 0u);
  EXPECT_EQ(owned.owner.metrics().pages_used, 0u);
  owned.finish();
  EXPECT_EQ((owned.tokens[{"a", 1}].size()), told);
  EXPECT_EQ((owned.ends[{"a", 1}]), 0);
}

TEST(InstanceOwner, QueueFullIsATypedError) {
  Owned owned;
  for (RequestId id = 0; id < limits::kMaxActiveSequences + limits::kMaxQueuedRequests + 50; ++id)
    owned.owner.submit("a", Owned::request(id, 50));
  ASSERT_FALSE(owned.failures.empty());
  EXPECT_EQ(owned.failures.front().error.code, ErrorCode::unavailable);
  EXPECT_THAT(owned.failures.front().error.message, HasSubstr("queue full"));
}

TEST(InstanceOwner, FailAllTellsEveryRequestOnceAndTakesNoMore) {
  Owned owned;
  owned.owner.submit("a", Owned::request(1));
  owned.owner.submit("b", Owned::request(2));
  const Error why{ErrorCode::unavailable, "worker of rank 1 ended", ""};
  owned.owner.fail_all(why);
  owned.owner.fail_all(why);
  ASSERT_EQ(owned.failures.size(), 2u);
  EXPECT_EQ(owned.failures[0].error.message, why.message);
  owned.owner.submit("a", Owned::request(3));
  EXPECT_EQ(owned.failures.size(), 3u);
  owned.finish();
  EXPECT_TRUE(owned.tokens.empty());
}

TEST(InstanceOwner, AWrongResultIsAnError) {
  Owned owned;
  owned.owner.submit("a", Owned::request(1));
  ASSERT_FALSE(owned.results.empty());
  runtime::StepResult wrong = owned.results.front();
  wrong.id += 5;
  EXPECT_FALSE(owned.owner.on_step_result(wrong).has_value());
}

}  // namespace
}  // namespace shoal::serving
