// Stages of several ranks: what they compute is one rank's result but for the order of sums, every time and
// on every rank; the tokens of a trained model are the same; a rank that is lost ends the step with an Error.
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <numeric>
#include <set>
#include <thread>

#include "runtime/fixture_models.h"

namespace shoal::runtime {
namespace {

using engine::KvType;

// In units of the logits' standard deviation.
constexpr double kOrderOfSums = 1e-4;

// One of each kind of layer and of weights.
std::vector<FixtureCase> chosen_models() {
  const std::set<std::string> chosen = {"llama",
                                        "llama_tied",
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

TEST_P(TensorParallel, ChunksAndStagesDoNotChangeABit) {
  LocalPipelineOptions options = pipeline_options(KvType::f16);
  options.ranks = 3;
  const std::vector<float> whole = logits(model_, options, tokens_, 24);
  options.stages = 2;
  const std::vector<float> cut = logits(model_, options, tokens_, 5);
  ASSERT_EQ(cut.size(), whole.size());
  EXPECT_EQ(std::memcmp(cut.data(), whole.data(), whole.size() * sizeof(float)), 0);
}

// One stage of a whole model, rank by rank, so that a test sees what each of them has.
class Ranks {
 public:
  // `fails_at`: rank 1 fails on its own at this sum or gather, counted from 0.
  Ranks(const LoadedModel& model, uint32_t count, int fails_at = -1) {
    std::vector<std::vector<link::Link*>> peers(count, std::vector<link::Link*>(count));
    for (uint32_t b = 1; b < count; ++b) {
      for (uint32_t a = 0; a < b; ++a) {
        wires.push_back(link::make_memory_links());
        peers[a][b] = wires.back().first.get();
        peers[b][a] = wires.back().second.get();
      }
    }
    for (uint32_t rank = 0; rank < count; ++rank) {
      groups_.push_back(std::make_unique<FailingGroup>(rank == 1 ? fails_at : -1));
      groups_.back()->join(peers[rank]);
      const model::CpuEngineOptions options{.stage = model::whole_model(model.spec),
                                            .shard = {.rank = rank, .count = count},
                                            .kv = pipeline_options(KvType::f16).kv,
                                            .threads = 1,
                                            .isa = {},
                                            .progress = {},
                                            .ranks = groups_.back().get()};
      stages.emplace_back(must(model::load_cpu_engine(model.checkpoint, model.spec, options)), rank == 0);
    }
  }

  // Calls run(stage) for all of them at once.
  template <class Run>
  auto run_all(Run run) {
    std::vector<std::optional<std::invoke_result_t<Run, Stage&>>> results(stages.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < stages.size(); ++rank)
      threads.emplace_back([&, rank] { results[rank] = run(stages[rank]); });
    for (std::thread& thread : threads) thread.join();
    return results;
  }

  std::vector<link::MemoryLinks> wires;  // between ranks 0 1, 0 2, 1 2, …
  std::vector<Stage> stages;

 private:
  class FailingGroup final : public engine::RankGroup {
   public:
    explicit FailingGroup(int fails_at) : fails_at_(fails_at) {}
    void join(std::vector<link::Link*> peers) { group_.join(std::move(peers)); }
    Result<> sum(std::span<float> values) override {
      SHOAL_TRY_VOID(count());
      return group_.sum(values);
    }
    Result<> gather(std::span<const float> mine, std::span<float> all,
                    std::span<const uint32_t> counts) override {
      SHOAL_TRY_VOID(count());
      return group_.gather(mine, all, counts);
    }

   private:
    Result<> count() {
      if (calls_++ != fails_at_) return {};
      group_.leave();
      return fail(ErrorCode::internal, "this rank is out of order");
    }

    LinkGroup group_;
    int fails_at_;
    int calls_ = 0;
  };

  std::vector<std::unique_ptr<FailingGroup>> groups_;
};

Step step_of(SequenceDriver& driver, std::span<const int32_t> tokens, bool samples) {
  Step step;
  driver.add_rows(step, tokens, samples, 16);
  return step;
}

TEST_P(TensorParallel, AllRanksHaveTheSameLogitsEveryTime) {
  std::vector<std::vector<float>> seen;
  for (int time = 0; time < 2; ++time) {
    Ranks ranks(model_, 3);
    SequenceDriver driver(1, 0);
    const Step step = step_of(driver, tokens_, false);
    for (const auto& logits : ranks.run_all([&](Stage& stage) { return stage.run_rows(step, {}); })) {
      ASSERT_TRUE(logits->has_value()) << logits->error().text();
      seen.emplace_back((*logits)->begin(), (*logits)->end());
    }
  }
  for (const std::vector<float>& logits : seen) {
    ASSERT_EQ(logits.size(), 24 * model_.spec.vocabulary_size);
    EXPECT_EQ(std::memcmp(logits.data(), seen[0].data(), logits.size() * sizeof(float)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallel, testing::ValuesIn(chosen_models()), case_name);

// A model that was trained: its best tokens stand out, and no order of sums changes them.
class TrainedModel : public testing::Test {
 protected:
  std::vector<int32_t> answer(const LocalPipelineOptions& options) const {
    LocalPipeline pipeline = must(LocalPipeline::load(model_.checkpoint, model_.spec, options));
    return generate(pipeline, prompt_, 24);
  }

  LoadedModel model_ = open_model(kDemoModel);
  std::vector<int32_t> prompt_ = test_tokens(40, model_.spec.vocabulary_size);
};

TEST_F(TrainedModel, SaysTheSameOverTwoToEightRanksAndInStages) {
  const std::vector<int32_t> expected = answer(pipeline_options(KvType::f16));
  for (uint32_t ranks = 2; ranks <= 8; ++ranks) {
    LocalPipelineOptions options = pipeline_options(KvType::f16);
    options.ranks = ranks;
    EXPECT_EQ(answer(options), expected) << ranks << " ranks";
  }
  LocalPipelineOptions options = pipeline_options(KvType::f16);
  options.stages = 2;
  options.ranks = 3;
  options.shares = {7, 2, 3};
  EXPECT_EQ(answer(options), expected) << "two stages of three uneven ranks";
}

TEST_F(TrainedModel, SaysTheSameWithEveryTypeOfCache) {
  for (const KvType kv : {KvType::f32, KvType::q8}) {
    LocalPipelineOptions options = pipeline_options(kv);
    const std::vector<int32_t> expected = answer(options);
    options.ranks = 3;
    EXPECT_EQ(answer(options), expected) << static_cast<int>(kv);
  }
}

TEST_F(TrainedModel, RanksHoldAShareOfWeightsAndCache) {
  const auto memory = [&](uint32_t count) {
    const Ranks ranks(model_, count);
    std::vector<engine::EngineMemory> all;
    for (const Stage& stage : ranks.stages) all.push_back(stage.engine().memory());
    return all;
  };
  const engine::EngineMemory whole = memory(1).front();
  for (const engine::EngineMemory& share : memory(2)) {
    EXPECT_LT(share.weight_bytes, whole.weight_bytes * 11 / 20);
    EXPECT_EQ(share.kv_bytes, whole.kv_bytes / 2);
  }
}

TEST_F(TrainedModel, ARankThatFailsInAStepFailsItForAll) {
  const int exchanges = static_cast<int>(2 * model_.spec.layer_count() + 1);  // of a step
  for (const int fails_at : {0, 3, exchanges - 1, exchanges, 2 * exchanges - 1}) {
    Ranks ranks(model_, 3, fails_at);
    SequenceDriver driver(1, 0);
    std::vector<int32_t> rows = prompt_;
    for (int number = 0; number <= fails_at / exchanges; ++number) {
      const Step step = step_of(driver, rows, true);
      const auto outputs = ranks.run_all([&](Stage& stage) { return stage.run(step, {}); });
      for (size_t rank = 0; rank < outputs.size(); ++rank) {
        if (number < fails_at / exchanges) {
          ASSERT_TRUE(outputs[rank]->has_value()) << (*outputs[rank]).error().text();
          EXPECT_EQ((*outputs[rank])->tokens.size(), rank == 0 ? 1u : 0u);
        } else {
          ASSERT_FALSE(outputs[rank]->has_value()) << "rank " << rank << ", exchange " << fails_at;
          EXPECT_EQ(outputs[rank]->error().code, rank == 1 ? ErrorCode::internal : ErrorCode::unavailable);
        }
      }
      rows = {7};
    }
  }
}

TEST_F(TrainedModel, ACutWireFailsTheStepAndAllThatFollow) {
  Ranks ranks(model_, 2);
  SequenceDriver driver(1, 0);
  const auto run = [&](const Step& step) {
    return ranks.run_all([&](Stage& stage) { return stage.run(step, {}); });
  };
  for (const auto& output : run(step_of(driver, prompt_, true))) ASSERT_TRUE(output->has_value());
  link::cut(*ranks.wires[0].wire);
  for (int step = 0; step < 2; ++step) {
    for (const auto& output : run(step_of(driver, std::vector<int32_t>{5}, true))) {
      ASSERT_FALSE(output->has_value());
      EXPECT_EQ(output->error().code, ErrorCode::unavailable);
    }
  }
}

TEST_F(TrainedModel, MoreRanksThanAGroupCanHaveAreRefused) {
  for (const uint32_t ranks : {0u, 9u}) {
    LocalPipelineOptions options = pipeline_options();
    options.ranks = ranks;
    const auto loaded = LocalPipeline::load(model_.checkpoint, model_.spec, options);
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().code, ErrorCode::invalid_argument);
  }
}

}  // namespace
}  // namespace shoal::runtime
