#include "runtime/stage_frame.h"

#include <future>
#include <gtest/gtest.h>
#include <numeric>

#include "link/memory_link.h"
#include "runtime/fixture_models.h"

namespace shoal::runtime {
namespace {

constexpr const char* kModel = "models/demo/shoal-demo-q8_0.gguf";

Step step_of(uint64_t id, std::vector<int32_t> token_ids) {
  Step step;
  step.id = id;
  step.sequences.push_back({.sequence = 8, .row_count = static_cast<uint32_t>(token_ids.size())});
  step.token_ids = std::move(token_ids);
  return step;
}

class StageFrames : public testing::Test {
 protected:
  link::Frame frame(const Step& step, std::span<const float> hidden) {
    ByteWriter writer;
    step.encode(writer);
    const std::vector<float> times = {1.5F, 2.5F, 3.5F};
    return make_stage_frame(*links.first, step.id, writer.bytes(), times, hidden).value();
  }
  link::MemoryLinks links = link::make_memory_links();
};

TEST_F(StageFrames, CarryStepTimesAndAlignedRows) {
  std::vector<float> hidden(333);
  std::iota(hidden.begin(), hidden.end(), 0.5F);
  const Step step = step_of(42, {3, 1, 4, 1, 5});
  link::Frame sent = frame(step, hidden);
  StageFrame read = read_stage_frame(sent).value();
  EXPECT_EQ(read.step.id, 42u);
  EXPECT_EQ(read.step.token_ids, step.token_ids);
  EXPECT_EQ(read.stage_milliseconds, (std::vector<float>{1.5F, 2.5F, 3.5F}));
  EXPECT_TRUE(std::ranges::equal(read.hidden, hidden));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(read.hidden.data()) % 16, 0u);
}

TEST_F(StageFrames, RowsMayTravelAsBf16) {
  std::vector<float> hidden(37);
  std::iota(hidden.begin(), hidden.end(), -3.7F);
  const Step step = step_of(42, {3, 1});
  ByteWriter writer;
  step.encode(writer);
  const link::Frame exact = make_stage_frame(*links.first, 42, writer.bytes(), {}, hidden).value();
  const link::Frame sent =
      make_stage_frame(*links.first, 42, writer.bytes(), {}, hidden, WireFormat::bf16).value();
  EXPECT_EQ(exact.payload.size() - sent.payload.size(), hidden.size() * 2);
  const StageFrame read = read_stage_frame(sent).value();
  EXPECT_EQ(read.step.token_ids, step.token_ids);
  ASSERT_EQ(read.hidden.size(), hidden.size());
  for (size_t i = 0; i < hidden.size(); ++i)
    EXPECT_NEAR(read.hidden[i], hidden[i], std::abs(hidden[i]) / 256) << i;
}

TEST_F(StageFrames, EveryTruncationIsRefused) {
  const std::vector<float> hidden(3, 1.0F);
  const Step step = step_of(1, {7});
  ASSERT_TRUE(read_stage_frame(frame(step, hidden)));
  const size_t whole = frame(step, hidden).payload.size();
  for (size_t size = 0; size < whole; ++size) {
    link::Frame cut = frame(step, hidden);
    cut.payload.shrink(size);
    EXPECT_FALSE(read_stage_frame(cut)) << size << " of " << whole;
  }
}

TEST_F(StageFrames, CountsThatDoNotFitTheFrameAreRefused) {
  for (size_t field = 0; field < 4; ++field) {
    for (uint32_t value : {0u, 1u, 1000u, UINT32_MAX}) {
      link::Frame changed = frame(step_of(1, {7}), std::vector<float>(5, 1.0F));
      uint32_t before = 0;
      std::memcpy(&before, changed.payload.data() + 4 * field, 4);
      if (before == value) continue;
      std::memcpy(changed.payload.data() + 4 * field, &value, 4);
      EXPECT_FALSE(read_stage_frame(changed)) << "field " << field << " = " << value;
    }
  }
  link::Frame other = frame(step_of(1, {7}), {});
  ASSERT_TRUE(read_stage_frame(other));
  other.step = 2;
  EXPECT_FALSE(read_stage_frame(other));
}

// Two stages with nothing but a Link between them say what one stage says.
TEST(StagesOverAMemoryLink, ChooseTheTokensOfOneStage) {
  LoadedModel model = open_model(kModel);
  auto options = pipeline_options();
  auto whole = must(LocalPipeline::load(model.checkpoint, model.spec, options));
  const std::vector<int32_t> prompt = {5, 17, 200, 31, 44};
  const auto expected = generate(whole, prompt, 12);

  options.stages = 2;
  auto halves = must(LocalPipeline::load(model.checkpoint, model.spec, options));
  auto& stages = const_cast<std::vector<LocalRanks>&>(halves.stages());
  link::MemoryLinks links = link::make_memory_links({}, {.delay = microseconds(200)});
  auto second = std::async(std::launch::async, [&] {
    while (true) {
      auto received = links.second->receive(kStepChannel);
      if (!received) return received.error().code;
      StageFrame incoming = read_stage_frame(**received).value();
      auto output = stages[1].run(incoming.step, incoming.hidden).value();
      StepResult result{incoming.step.id, 0, output.tokens, {}};
      if (!links.second->send(make_result_frame(*links.second, result).value())) return ErrorCode::internal;
    }
  });
  SequenceDriver driver(1, 0);
  std::vector<int32_t> rows = prompt;
  std::vector<int32_t> answer;
  while (answer.size() < expected.size()) {
    Step step;
    step.id = answer.size();
    driver.add_rows(step, rows, true, 16);
    auto output = stages[0].run(step, {}).value();
    ByteWriter writer;
    step.encode(writer);
    ASSERT_TRUE(links.first->send(
        make_stage_frame(*links.first, step.id, writer.bytes(), {}, output.hidden).value()));
    auto result = read_result_frame(**links.first->receive(kResultChannel)).value();
    answer.push_back(result.tokens.at(0).sampled.token);
    rows = {answer.back()};
  }
  EXPECT_EQ(answer, expected);
  EXPECT_TRUE(links.first->close(std::chrono::steady_clock::now() + seconds(10)));
  EXPECT_EQ(second.get(), ErrorCode::cancelled);
}

}  // namespace
}  // namespace shoal::runtime
