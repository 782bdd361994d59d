// Whole models in one process. Their numbers are judged in fixture_table_test.cpp, their bits in
// bit_equality_test.cpp.
#include "runtime/local_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/fixture_models.h"
#include "text/chat_encoder.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace shoal::runtime {
namespace {

using engine::KvType;

TEST(LocalPipeline, AnAnswerGoesOnFromItsCommittedTokensAsIfNeverInterrupted) {
  const LoadedModel model = open_model(kDemoModel);
  LocalPipeline pipeline =
      must(LocalPipeline::load(model.checkpoint, model.spec, pipeline_options(KvType::f16)));
  const std::vector<int32_t> prompt = test_tokens(20, model.spec.vocabulary_size);
  const SamplingParameters sampling{.temperature = 0.9f, .top_p = 0.95f, .seed = 3};
  const std::vector<int32_t> whole = generate(pipeline, prompt, 30, sampling);
  for (size_t committed : {1u, 16u, 29u}) {
    std::vector<int32_t> resumed = prompt;
    resumed.insert(resumed.end(), whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(committed));
    const std::vector<int32_t> rest(whole.begin() + static_cast<std::ptrdiff_t>(committed), whole.end());
    EXPECT_EQ(generate(pipeline, resumed, 30 - committed, sampling), rest) << committed;
  }
}

TEST(LocalPipeline, TheDemoModelKnowsTheCapitalOfNorway) {
  const LoadedModel model = open_model(kDemoModel);
  const text::Tokenizer tokenizer = must(text::Tokenizer::open(model.checkpoint));
  const text::ChatTemplate chat_template = must(text::ChatTemplate::from_checkpoint(model.checkpoint));
  text::ChatInput input;
  input.messages = {{{"role", "user"}, {"content", "What is the capital of Norway?"}}};
  const std::vector<int32_t> prompt = must(text::encode_chat(tokenizer, chat_template, input)).tokens;
  LocalPipelineOptions options = pipeline_options(KvType::f16);
  options.stages = 2;
  LocalPipeline pipeline = must(LocalPipeline::load(model.checkpoint, model.spec, options));
  const std::string answer = must(tokenizer.decode(generate(pipeline, prompt, 8), text::SpecialTokens::skip));
  EXPECT_THAT(answer, testing::HasSubstr("Oslo"));
}

TEST(LocalPipeline, StagesWithNothingToDoAreRefused) {
  const LoadedModel model = open_model(kDemoModel);
  LocalPipelineOptions options = pipeline_options();
  options.stages = model.spec.layer_count() + 2;
  const auto loaded = LocalPipeline::load(model.checkpoint, model.spec, options);
  ASSERT_FALSE(loaded.has_value());
  EXPECT_EQ(loaded.error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace shoal::runtime
