#include "runtime/step.h"

#include <gtest/gtest.h>
#include <limits>

#include "base/limits.h"

namespace shoal::runtime {
namespace {

Step sample_step() {
  Step step;
  step.id = 7'000'000'000;
  step.epoch = 3;
  step.ended = {1, 2};
  SequenceStart start;
  start.sequence = 9;
  start.prompt_tokens = 3;
  start.sampling = {.temperature = 0.5f,
                    .top_k = 40,
                    .top_p = 0.9f,
                    .min_p = 0.05f,
                    .repetition_penalty = 1.1f,
                    .presence_penalty = -0.5f,
                    .frequency_penalty = 0.25f,
                    .seed = 0xFEDCBA9876543210,
                    .top_logprobs = 5,
                    .logit_bias = {{3, -100.0f}, {4, 1.5f}}};
  start.prompt = {10, 11, 12};
  start.answer = {13};
  step.started = {start};
  step.page_copies = {{4, 5}};
  step.sequences = {{.sequence = 9,
                     .context_tokens = 0,
                     .row_count = 3,
                     .samples = true,
                     .first_page_index = 0,
                     .pages = {5, 6}},
                    {.sequence = 8,
                     .context_tokens = 31,
                     .row_count = 1,
                     .samples = false,
                     .first_page_index = 1,
                     .pages = {}}};
  step.token_ids = {10, 11, 12, 40};
  return step;
}

StepResult sample_result() {
  StepResult result;
  result.id = 7'000'000'000;
  result.epoch = 3;
  result.tokens = {{9, {.token = 77, .logprob = -0.25f, .alternatives = {{77, -0.25f}, {78, -2.5f}}}}};
  result.stage_milliseconds = {1.5f, 2.5f};
  return result;
}

template <class Message>
Bytes encoded(const Message& message) {
  ByteWriter writer;
  message.encode(writer);
  return writer.take();
}

template <class Message>
Result<Message> decoded(ByteView bytes) {
  ByteReader reader(bytes);
  return Message::decode(reader);
}

TEST(StepCodec, AStepSurvivesTheWire) {
  const Step sent = sample_step();
  const Bytes bytes = encoded(sent);
  ByteReader reader(bytes);
  const auto received = Step::decode(reader);
  ASSERT_TRUE(received.has_value()) << received.error().text();
  EXPECT_EQ(reader.remaining(), 0u);
  EXPECT_EQ(received->id, sent.id);
  EXPECT_EQ(received->epoch, sent.epoch);
  EXPECT_EQ(received->ended, sent.ended);
  ASSERT_EQ(received->started.size(), 1u);
  EXPECT_EQ(received->started[0].sampling.logit_bias, sent.started[0].sampling.logit_bias);
  EXPECT_EQ(received->started[0].sampling.seed, sent.started[0].sampling.seed);
  EXPECT_EQ(received->started[0].prompt_tokens, 3u);
  EXPECT_EQ(received->started[0].prompt, sent.started[0].prompt);
  ASSERT_EQ(received->sequences.size(), 2u);
  EXPECT_EQ(received->sequences[0].pages, sent.sequences[0].pages);
  EXPECT_TRUE(received->sequences[0].samples);
  EXPECT_EQ(received->sequences[1].context_tokens, 31u);
  EXPECT_EQ(encoded(*received), bytes);  // every other field
}

TEST(StepCodec, AResultSurvivesTheWire) {
  const Bytes bytes = encoded(sample_result());
  const auto received = decoded<StepResult>(bytes);
  ASSERT_TRUE(received.has_value()) << received.error().text();
  EXPECT_EQ(received->tokens[0].sampled.alternatives[1].token, 78);
  EXPECT_EQ(encoded(*received), bytes);
}

TEST(StepCodec, BytesCutAnywhereAreAnError) {
  const Bytes step = encoded(sample_step());
  for (size_t length = 0; length < step.size(); ++length)
    EXPECT_FALSE(decoded<Step>(ByteView(step).first(length)).has_value()) << length;
  const Bytes result = encoded(sample_result());
  for (size_t length = 0; length < result.size(); ++length)
    EXPECT_FALSE(decoded<StepResult>(ByteView(result).first(length)).has_value()) << length;
}

// Whatever a changed byte means, it is read as a valid message or refused; sanitizers watch for the rest.
TEST(StepCodec, AnyChangedByteIsReadOrRefusedButNeverHarmful) {
  Bytes bytes = encoded(sample_step());
  size_t refused = 0;
  for (size_t index = 0; index < bytes.size(); ++index) {
    for (int flip : {0x01, 0x80, 0xFF}) {
      bytes[index] ^= static_cast<std::byte>(flip);
      refused += !decoded<Step>(bytes).has_value();
      bytes[index] ^= static_cast<std::byte>(flip);
    }
  }
  EXPECT_GT(refused, 0u);
}

TEST(StepCodec, RowsMustMatchTokenIds) {
  Step step = sample_step();
  step.token_ids.pop_back();
  const auto received = decoded<Step>(encoded(step));
  ASSERT_FALSE(received.has_value());
  EXPECT_EQ(received.error().code, ErrorCode::malformed);
  step.sequences[0].row_count = std::numeric_limits<uint32_t>::max();
  EXPECT_FALSE(decoded<Step>(encoded(step)).has_value());
}

TEST(StepCodec, APromptLongerThanAnyContextIsRefused) {
  Step step = sample_step();
  step.started[0].prompt_tokens = limits::kMaxContextTokens;
  EXPECT_TRUE(decoded<Step>(encoded(step)).has_value());
  step.started[0].prompt_tokens += 1;
  const auto received = decoded<Step>(encoded(step));
  ASSERT_FALSE(received.has_value());
  EXPECT_EQ(received.error().code, ErrorCode::limit_exceeded);
}

TEST(StepCodec, MoreRowsThanAStepMayHaveAreRefused) {
  Step step;
  step.token_ids.assign(limits::kMaxStepRows + 1, 0);
  step.sequences = {{.sequence = 1,
                     .context_tokens = 0,
                     .row_count = limits::kMaxStepRows + 1,
                     .samples = false,
                     .first_page_index = 0,
                     .pages = {}}};
  EXPECT_FALSE(decoded<Step>(encoded(step)).has_value());
}

TEST(SamplingCodec, ValuesOutOfRangeAreRefused) {
  const auto accepted = [](const SamplingParameters& parameters) {
    return decoded<SamplingParameters>(encoded(parameters)).has_value();
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(accepted({}));
  EXPECT_TRUE(accepted({.temperature = 0}));
  EXPECT_FALSE(accepted({.temperature = -1}));
  EXPECT_FALSE(accepted({.temperature = kNan}));
  EXPECT_FALSE(accepted({.top_p = 1.5f}));
  EXPECT_FALSE(accepted({.min_p = kNan}));
  EXPECT_FALSE(accepted({.repetition_penalty = 0}));
  EXPECT_FALSE(accepted({.presence_penalty = std::numeric_limits<float>::infinity()}));
  EXPECT_FALSE(accepted({.frequency_penalty = kNan}));
  EXPECT_FALSE(accepted({.top_logprobs = limits::kMaxTopLogprobs + 1}));
  EXPECT_FALSE(accepted({.logit_bias = {{1, kNan}}}));
}

}  // namespace
}  // namespace shoal::runtime
