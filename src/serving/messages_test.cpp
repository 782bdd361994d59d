#include "serving/messages.h"

#include <gtest/gtest.h>
#include <random>

#include "serving/figures.h"
#include "serving/journal.h"
#include "serving/peer_search.h"
#include "serving/relay_messages.h"

namespace shoal::serving {
namespace {

SubmitMessage a_submit() {
  SubmitMessage message;
  message.instance = "demo-1";
  message.epoch = 7;
  message.request = 0x1122334455667788;
  message.prompt = {1, 2, 3};
  message.committed = {4, 5};
  message.sampling.temperature = 0.5f;
  message.sampling.seed = 99;
  message.sampling.logit_bias = {{3, -1.0f}};
  message.maximum_tokens = 50;
  message.stop_ids = {0, 2};
  message.ignore_end_of_sequence = true;
  return message;
}

TokensMessage some_tokens() {
  TokensMessage message;
  message.epoch = 7;
  message.request = 5;
  message.first_index = 2;
  message.cached_tokens = 32;
  message.tokens = {{.token = 8, .logprob = -0.5f, .alternatives = {{8, -0.5f}, {9, -1.5f}}},
                    {.token = 9, .logprob = -1, .alternatives = {}}};
  message.end = scheduler::EndReason::length;
  return message;
}

TEST(Messages, ComeBackAsTheyWere) {
  const SubmitMessage submit = *SubmitMessage::decode(a_submit().encode());
  EXPECT_EQ(submit.instance, "demo-1");
  EXPECT_EQ(submit.epoch, 7u);
  EXPECT_EQ(submit.request, 0x1122334455667788u);
  EXPECT_EQ(submit.prompt, a_submit().prompt);
  EXPECT_EQ(submit.committed, a_submit().committed);
  EXPECT_EQ(submit.sampling.temperature, 0.5f);
  EXPECT_EQ(submit.sampling.seed, 99u);
  EXPECT_EQ(submit.sampling.logit_bias, a_submit().sampling.logit_bias);
  EXPECT_EQ(submit.maximum_tokens, 50u);
  EXPECT_EQ(submit.stop_ids, a_submit().stop_ids);
  EXPECT_TRUE(submit.ignore_end_of_sequence);

  const TokensMessage tokens = *TokensMessage::decode(some_tokens().encode());
  EXPECT_EQ(tokens.first_index, 2u);
  EXPECT_EQ(tokens.cached_tokens, 32u);
  ASSERT_EQ(tokens.tokens.size(), 2u);
  EXPECT_EQ(tokens.tokens[0].alternatives[1].token, 9);
  EXPECT_EQ(tokens.end, scheduler::EndReason::length);

  const FailMessage failure = *FailMessage::decode(
      FailMessage{.epoch = 1, .request = 2, .error = {ErrorCode::limit_exceeded, "too long", "cut it"}}
          .encode());
  EXPECT_EQ(failure.error.code, ErrorCode::limit_exceeded);
  EXPECT_EQ(failure.error.text(), "too long (cut it)");

  const CancelMessage cancel =
      *CancelMessage::decode(CancelMessage{.instance = "x", .epoch = 3, .request = 4}.encode());
  EXPECT_EQ(cancel.instance, "x");
  EXPECT_EQ(cancel.request, 4u);
  EXPECT_EQ(AcceptMessage::decode(AcceptMessage{.epoch = 3, .request = 4}.encode())->request, 4u);
}

// Cut, grown and flipped bytes must give an Error or a valid message, never a crash.
template <class Message>
void expect_survives_damage(const Bytes& good) {
  ASSERT_TRUE(Message::decode(good).has_value());
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(Message::decode(ByteView(good).first(size)).has_value()) << size;
  Bytes longer = good;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(Message::decode(longer).has_value());
  std::mt19937_64 random(1);
  for (int round = 0; round < 20000; ++round) {
    Bytes damaged = good;
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips)
      damaged[random() % damaged.size()] = static_cast<std::byte>(random());
    (void)Message::decode(damaged);
  }
}

TEST(Messages, HostileBytesAreErrors) {
  expect_survives_damage<SubmitMessage>(a_submit().encode());
  expect_survives_damage<TokensMessage>(some_tokens().encode());
  expect_survives_damage<FailMessage>(
      FailMessage{.epoch = 1, .request = 2, .error = {ErrorCode::io, "m", "h"}}.encode());
  expect_survives_damage<CancelMessage>(CancelMessage{.instance = "x", .epoch = 3, .request = 4}.encode());
  expect_survives_damage<AcceptMessage>(AcceptMessage{.epoch = 3, .request = 4}.encode());
  expect_survives_damage<FiguresMessage>(FiguresMessage{.instance = "x",
                                                        .epoch = 1,
                                                        .tokens_per_second = 5,
                                                        .waiting = 1,
                                                        .active = 2,
                                                        .stage_milliseconds = {1, 2},
                                                        .advice = {"bob takes 30 % longer than measured"}}
                                             .encode());
  SubmitMessage negative = a_submit();
  negative.prompt.push_back(-1);
  EXPECT_FALSE(SubmitMessage::decode(negative.encode()).has_value());
}

AskMessage an_ask(Prompt prompt) {
  AskMessage message;
  message.id = 5;
  message.request.model = "shoal-demo";
  message.request.prompt = std::move(prompt);
  message.request.max_tokens = 7;
  message.request.stop = {"end"};
  message.request.logprobs = true;
  return message;
}

ChatPrompt a_chat() {
  ChatPrompt chat;
  chat.messages.push_back(JsonObject{{"role", "user"}, {"content", "hi"}});
  chat.template_arguments["enable_thinking"] = false;
  return chat;
}

HeardMessage a_piece() {
  HeardMessage message{.id = 5, .index = 2, .text = "né", .tokens = {}, .end = {}};
  message.tokens.push_back({.text = "né",
                            .sampled = {.token = 3, .logprob = -1, .alternatives = {{3, -1}, {4, -2}}},
                            .alternative_texts = {"né", "no"}});
  message.end = Finished{.reason = FinishReason::stop, .stop = "end", .usage = {1, 2, 3}};
  return message;
}

TEST(RelayMessages, ComeBackAsTheyWere) {
  const GenerateRequest request = AskMessage::decode(an_ask(a_chat()).encode())->request;
  EXPECT_EQ(std::get<ChatPrompt>(request.prompt).messages, a_chat().messages);
  EXPECT_EQ(std::get<ChatPrompt>(request.prompt).template_arguments, a_chat().template_arguments);
  EXPECT_EQ(request.max_tokens, 7u);
  EXPECT_EQ(request.stop, std::vector<std::string>{"end"});
  EXPECT_TRUE(request.logprobs);
  const AskMessage text = *AskMessage::decode(an_ask(TextPrompt{"hello"}).encode());
  EXPECT_EQ(std::get<TextPrompt>(text.request.prompt).text, "hello");
  const HeardMessage heard = *HeardMessage::decode(a_piece().encode());
  EXPECT_EQ(heard.text, "né");
  EXPECT_EQ(heard.tokens[0].alternative_texts[1], "no");
  EXPECT_EQ(std::get<Finished>(heard.end).stop, "end");
  EXPECT_EQ(std::get<Finished>(heard.end).usage.completion_tokens, 3u);
  const PlacedMessage placed{.id = 1, .outcome = fail(ErrorCode::out_of_memory, "3 GiB are missing")};
  EXPECT_EQ(PlacedMessage::decode(placed.encode())->outcome.error().code, ErrorCode::out_of_memory);
}

TEST(RelayMessages, HostileBytesAreErrors) {
  expect_survives_damage<AskMessage>(an_ask(a_chat()).encode());
  expect_survives_damage<AskMessage>(an_ask(std::vector<int32_t>{1, 2}).encode());
  expect_survives_damage<HeardMessage>(a_piece().encode());
  expect_survives_damage<HangUpMessage>(HangUpMessage{.id = 3}.encode());
  expect_survives_damage<PlaceMessage>(PlaceMessage{.id = 3,
                                                    .options = {.model = "m",
                                                                .preview = true,
                                                                .minimum_nodes = 2,
                                                                .context_tokens = 9,
                                                                .strategy = planner::Strategy::hybrid,
                                                                .objective = planner::Objective::ttft,
                                                                .wire = planner::WireFormat::bf16,
                                                                .concurrency = 3}}
                                           .encode());
  expect_survives_damage<PlacedMessage>(
      PlacedMessage{.id = 1, .outcome = Json(JsonObject{{"a", 1}})}.encode());
}

TEST(SearchMessages, ComeBackAsTheyWereAndHostileBytesAreErrors) {
  const Bytes seek = SeekMessage{.id = 7, .name = "/models/demo.gguf", .digest = "abc"}.encode();
  EXPECT_EQ(SeekMessage::decode(seek)->id, 7u);
  EXPECT_EQ(SeekMessage::decode(seek)->name, "/models/demo.gguf");
  EXPECT_EQ(SeekMessage::decode(seek)->digest, "abc");
  expect_survives_damage<SeekMessage>(seek);
  EXPECT_FALSE(
      SeekMessage::decode(SeekMessage{.id = 7, .name = std::string(4097, 'x'), .digest = ""}.encode())
          .has_value());
  const Bytes sought = SoughtMessage{.id = 7, .found = true}.encode();
  EXPECT_EQ(SoughtMessage::decode(sought)->id, 7u);
  EXPECT_TRUE(SoughtMessage::decode(sought)->found);
  expect_survives_damage<SoughtMessage>(sought);
  Bytes neither = sought;
  neither.back() = std::byte{2};
  EXPECT_FALSE(SoughtMessage::decode(neither).has_value()) << "a flag is 0 or 1";
}

TEST(Journal, RepeatedTokensAreDroppedAndMissingOnesNoticed) {
  JournalEntry entry;
  TokensMessage message = some_tokens();
  message.first_index = 0;
  EXPECT_EQ(entry.commit(message)->size(), 2u);
  EXPECT_TRUE(entry.commit(message)->empty()) << "delivered twice";
  message.first_index = 1;
  EXPECT_EQ(entry.commit(message)->size(), 1u) << "overlaps by one";
  EXPECT_EQ(entry.submit.committed, (std::vector<int32_t>{8, 9, 9}));
  message.first_index = 4;
  EXPECT_FALSE(entry.commit(message).has_value()) << "index 3 is missing";
  EXPECT_EQ(entry.submit.committed.size(), 3u);
}

}  // namespace
}  // namespace shoal::serving
