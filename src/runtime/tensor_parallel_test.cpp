// Stages of several ranks: what they compute is one rank's result but for the order of sums, every time and
// on every rank; the tokens of a trained model are the same; a rank that is lost ends the step with an Error.
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <numeric>
#include <set>

#include "runtime/fixture_models.h"

namespace shoal::runtime {
namespace {

using engine::KvType;

// In units of the logits' standard deviation.
constexpr double kOrderOfSums = 1e-4;

// One of each kind of layer and of weights.
std::vector<FixtureCase> chosen_models() {
  const std::set<std::string> chosen = {"llama",
                                        "qwen2",
                                        "qwen3",
                                        "gemma2",
                                        "gemma3",
                                        "mistral",
                                        "phi3",
                                        "mixtral",
                                        "qwen3_moe",
                                        "glm4_moe",
                                        "deepseek_v2",
                                        "deepseek_v3",
                                        "gpt_oss_mxfp4",
                                        "qwen3_next",
                                        "qwen3_5",
                                        "gguf-gpt_oss_mxfp4-mxfp4",
                                        "gguf-qwen3_5-f16",
                                        "llama_q-Q4_K_M",
                                        "llama_q-Q5_0",
                                        "llama_q-Q8_0",
                                        "mlx_dense-4bit",
                                        "mlx_moe-4bit"};
  std::vector<FixtureCase> cases = fixture_cases();
  std::erase_if(cases, [&](const FixtureCase& tested) { return !chosen.contains(tested.name); });
  return cases;
}

std::vector<float> logits(const LoadedModel& model, const LocalPipelineOptions& options,
                          std::span<const int32_t> tokens, size_t chunk) {
  LocalPipeline pipeline = must(LocalPipeline::load(model.checkpoint, model.spec, options));
  return logits_of(pipeline, tokens, chunk);
}

// The largest difference in units of the standard deviation of all that is wanted.
double difference(std::span<const float> got, std::span<const float> want) {
  const double mean = std::accumulate(want.begin(), want.end(), 0.0) / static_cast<double>(want.size());
  double squares = 0, largest = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double apart = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    largest = std::isnan(apart) ? 1e9 : std::max(largest, apart);
    squares += (static_cast<double>(want[i]) - mean) * (static_cast<double>(want[i]) - mean);
  }
  return largest / std::sqrt(squares / static_cast<double>(want.size()));
}

struct Cut {
  uint32_t ranks;
  std::vector<uint32_t> shares;
};

class TensorParallel : public testing::TestWithParam<FixtureCase> {
 protected:
  TensorParallel()
      : model_(open_model(GetParam().path)), tokens_(test_tokens(24, model_.spec.vocabulary_size)) {}

  LoadedModel model_;
  std::vector<int32_t> tokens_;
};

TEST_P(TensorParallel, LogitsAreThoseOfOneRankButForTheOrderOfSums) {
  const bool quantised = GetParam().compute == "quantised";
  const KvType kv = quantised ? KvType::f16 : KvType::f32;
  const std::vector<float> one = logits(model_, pipeline_options(kv), tokens_, 24);
  ASSERT_EQ(one.size(), 24 * model_.spec.vocabulary_size);
  for (const Cut& cut : {Cut{2, {}}, Cut{3, {}}, Cut{4, {}}, Cut{3, {5, 1, 2}}}) {
    LocalPipelineOptions options = pipeline_options(kv);
    options.ranks = cut.ranks;
    options.shares = cut.shares;
    const std::vector<float> many = logits(model_, options, tokens_, 7);
    ASSERT_EQ(many.size(), one.size());
    EXPECT_LT(difference(many, one), kOrderOfSums)
        << cut.ranks << " ranks, " << cut.shares.size() << " shares";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallel, testing::ValuesIn(chosen_models()), case_name);

}  // namespace
}  // namespace shoal::runtime
