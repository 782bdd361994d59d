// The numbers of whole models: against what transformers computed (tests/fixtures/README.md says how close is
// right), and bit for bit against themselves however the work is cut.
#include "runtime/local_pipeline.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <random>

#include "runtime/fixture_models.h"
#include "text/chat_encoder.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace shoal::runtime {
namespace {

using engine::KvType;

constexpr const char* kDemoModel = "models/demo/shoal-demo-q8_0.gguf";

std::vector<int32_t> test_tokens(size_t count, uint32_t vocabulary) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>((3 + 37 * i) % vocabulary);
  return tokens;
}

struct Case {
  std::string model;
  std::string expected;
};

void PrintTo(const Case& tested, std::ostream* out) {
  *out << tested.model;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model;
  for (char& letter : name)
    if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
  return name;
}

class FloatFixture : public testing::TestWithParam<Case> {};

TEST_P(FloatFixture, LogitsAndEveryGreedyTokenMatchTransformers) {
  const LoadedModel model = open_model(GetParam().model);
  const Expected expected(GetParam().expected);
  LocalPipeline pipeline = must(LocalPipeline::load(model.checkpoint, model.spec, pipeline_options()));
  ASSERT_EQ(expected.prompts.size(), 3u);
  for (const Expected::Prompt& prompt : expected.prompts) {
    const LogitError error =
        compare(expected, prompt, logits_of(pipeline, prompt.tokens, prompt.tokens.size()));
    EXPECT_LE(error.max, 2e-3) << prompt.name;
    EXPECT_EQ(generate(pipeline, prompt.tokens, prompt.greedy.size()), prompt.greedy) << prompt.name;
    RecordProperty(fmt::format("max_error_{}", prompt.name), fmt::format("{:.2e}", error.max));
  }
}

TEST_P(FloatFixture, HalfPrecisionCacheStaysClose) {
  const LoadedModel model = open_model(GetParam().model);
  const Expected expected(GetParam().expected);
  LocalPipeline pipeline =
      must(LocalPipeline::load(model.checkpoint, model.spec, pipeline_options(KvType::f16)));
  for (const Expected::Prompt& prompt : expected.prompts) {
    const LogitError error =
        compare(expected, prompt, logits_of(pipeline, prompt.tokens, prompt.tokens.size()));
    EXPECT_LE(error.max, 0.06) << prompt.name;
    EXPECT_LE(error.rms, 0.01) << prompt.name;
    RecordProperty(fmt::format("max_error_{}", prompt.name), fmt::format("{:.2e}", error.max));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, FloatFixture,
    testing::Values(Case{"tests/fixtures/models/llama", "tests/fixtures/models/llama"},
                    Case{"tests/fixtures/models/llama_tied", "tests/fixtures/models/llama_tied"},
                    Case{"tests/fixtures/models/qwen3", "tests/fixtures/models/qwen3"},
                    Case{"tests/fixtures/gguf/llama-bf16.gguf", "tests/fixtures/models/llama"},
                    Case{"tests/fixtures/gguf/qwen3-bf16.gguf", "tests/fixtures/models/qwen3"}),
    case_name);

class QuantisedFixture : public testing::TestWithParam<std::string> {};

TEST_P(QuantisedFixture, StaysCloseWithInt8Activations) {
  const std::string directory = "tests/fixtures/quants/llama_q-" + GetParam();
  const LoadedModel model = open_model(directory + "/model.gguf");
  const Expected expected(directory);
  LocalPipeline pipeline = must(LocalPipeline::load(model.checkpoint, model.spec, pipeline_options()));
  for (const Expected::Prompt& prompt : expected.prompts) {
    const LogitError error =
        compare(expected, prompt, logits_of(pipeline, prompt.tokens, prompt.tokens.size()));
    EXPECT_LE(error.max, 0.45) << prompt.name;
    EXPECT_LE(error.rms, 0.06) << prompt.name;
    RecordProperty(fmt::format("max_error_{}", prompt.name), fmt::format("{:.3f}", error.max));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, QuantisedFixture, testing::Values("Q8_0", "Q4_0", "Q4_K_M", "Q6_K"));

// However the work is cut, not one bit of one logit may change.
class BitEquality : public testing::TestWithParam<Case> {
 protected:
  static constexpr size_t kTokens = 75;

  BitEquality()
      : model_(open_model(GetParam().model)), tokens_(test_tokens(kTokens, model_.spec.vocabulary_size)) {}

  std::vector<float> logits(const LocalPipelineOptions& options, size_t chunk = kTokens) {
    LocalPipeline pipeline = must(LocalPipeline::load(model_.checkpoint, model_.spec, options));
    return logits_of(pipeline, tokens_, chunk);
  }

  static bool same_bits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
  }

  LoadedModel model_;
  std::vector<int32_t> tokens_;
};

TEST_P(BitEquality, OneTwoOrThreeStages) {
  const std::vector<float> one = logits(pipeline_options(KvType::f16));
  ASSERT_EQ(one.size(), kTokens * model_.spec.vocabulary_size);
  for (uint32_t stages : {2u, 3u}) {
    LocalPipelineOptions options = pipeline_options(KvType::f16);
    options.stages = stages;
    EXPECT_TRUE(same_bits(logits(options), one)) << stages << " stages";
  }
}

TEST_P(BitEquality, AnyChunk) {
  for (KvType kv : {KvType::f32, KvType::f16}) {
    const std::vector<float> whole = logits(pipeline_options(kv));
    for (size_t chunk : {size_t{1}, size_t{7}, size_t{32}})
      EXPECT_TRUE(same_bits(logits(pipeline_options(kv), chunk), whole)) << "chunks of " << chunk;
  }
}

TEST_P(BitEquality, EveryInstructionSet) {
  LocalPipelineOptions options = pipeline_options(KvType::f16);
  options.isa = engine::cpu::Isa::portable;
  const std::vector<float> portable = logits(options);
  for (engine::cpu::Isa isa : engine::cpu::available_isas()) {
    options.isa = isa;
    EXPECT_TRUE(same_bits(logits(options), portable)) << engine::cpu::to_string(isa);
    EXPECT_TRUE(same_bits(logits(options, 5), portable)) << engine::cpu::to_string(isa) << " in chunks";
  }
}

TEST_P(BitEquality, OneOrTwoThreads) {
  LocalPipelineOptions options = pipeline_options(KvType::f16);
  const std::vector<float> one = logits(options);
  options.threads = 2;
  EXPECT_TRUE(same_bits(logits(options), one));
}

// Five other sequences share every step, some reading a prompt, some decoding; their pages lie between ours.
TEST_P(BitEquality, AloneOrAmongOthers) {
  const std::vector<float> alone = logits(pipeline_options(KvType::f16, 128));
  LocalPipeline pipeline =
      must(LocalPipeline::load(model_.checkpoint, model_.spec, pipeline_options(KvType::f16, 128)));
  const size_t vocabulary = model_.spec.vocabulary_size;
  constexpr size_t kOthers = 5;
  std::vector<SequenceDriver> drivers;
  for (uint32_t index = 0; index <= kOthers; ++index) drivers.emplace_back(index + 1, index, kOthers + 1);
  std::mt19937 random(11);
  std::vector<float> together;
  for (size_t done = 0; done < kTokens;) {
    Step step;
    std::span<const float> rows;
    size_t first_row = 0;
    const size_t ours = std::min<size_t>(done == 0 ? 9 : 1 + random() % 4, kTokens - done);
    for (size_t index = 0; index <= kOthers; ++index) {
      if (index == kOthers / 2) {
        first_row = step.token_ids.size();
        drivers[kOthers].add_rows(step, std::span(tokens_).subspan(done, ours), true, 16);
      }
      if (index == kOthers || random() % 4 == 0) continue;
      const std::vector<int32_t> others =
          test_tokens(1 + random() % (index + 1), static_cast<uint32_t>(vocabulary));
      drivers[index].add_rows(step, others, true, 16);
    }
    rows = must(pipeline.run_rows(step)).subspan(first_row * vocabulary, ours * vocabulary);
    together.insert(together.end(), rows.begin(), rows.end());
    done += ours;
  }
  EXPECT_TRUE(same_bits(together, alone));
}

INSTANTIATE_TEST_SUITE_P(Models, BitEquality,
                         testing::Values(Case{"tests/fixtures/models/llama", ""},
                                         Case{"tests/fixtures/models/qwen3", ""},
                                         Case{"tests/fixtures/quants/llama_q-Q4_K_M/model.gguf", ""},
                                         Case{"tests/fixtures/quants/llama_q-Q4_0/model.gguf", ""},
                                         Case{kDemoModel, ""}),
                         case_name);

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
