// However the work of a model is cut (stages, chunks, batches, threads, instruction sets), not one bit of one
// logit may change. Every fixture, and the demo model.
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <set>

#include "runtime/fixture_models.h"

namespace shoal::runtime {
namespace {

using engine::KvType;

std::vector<FixtureCase> all_models() {
  std::vector<FixtureCase> cases = fixture_cases();
  if (kSanitized) {  // one of each kind of layer and of arithmetic
    const std::set<std::string> kept = {"gemma2",     "phi3",           "deepseek_v3", "gpt_oss_mxfp4",
                                        "qwen3_next", "llama_q-Q4_K_M", "mlx_moe-4bit"};
    std::erase_if(cases, [&](const FixtureCase& tested) { return !kept.contains(tested.name); });
  }
  cases.push_back({.name = "demo", .path = kDemoModel});
  return cases;
}

// However the work is cut, not one bit of one logit may change.
class BitEquality : public testing::TestWithParam<FixtureCase> {
 protected:
  static constexpr size_t kTokens = 75;

  BitEquality()
      : model_(open_model(GetParam().path)), tokens_(test_tokens(kTokens, model_.spec.vocabulary_size)) {}

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
    for (size_t chunk : {size_t{1}, size_t{7}, size_t{64}})
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

// Eight other sequences share every step, some reading a prompt, some decoding; their pages lie between ours.
TEST_P(BitEquality, AloneOrAmongOthers) {
  const std::vector<float> alone = logits(pipeline_options(KvType::f16, 256));
  LocalPipeline pipeline =
      must(LocalPipeline::load(model_.checkpoint, model_.spec, pipeline_options(KvType::f16, 256)));
  const size_t vocabulary = model_.spec.vocabulary_size;
  constexpr size_t kOthers = 8;
  std::vector<SequenceDriver> drivers;
  for (uint32_t index = 0; index <= kOthers; ++index)
    drivers.emplace_back(index + 1, index, kOthers + 1, kTokens);
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

INSTANTIATE_TEST_SUITE_P(Models, BitEquality, testing::ValuesIn(all_models()), case_name);

}  // namespace
}  // namespace shoal::runtime
