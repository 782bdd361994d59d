// How models are cut over ranks: everything is held exactly once, but for what is said to be whole.
#include "model/shard_plan.h"

#include <gmock/gmock.h>
#include <numeric>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using engine::Slice;
using engine::TensorShard;

// Each list of shares that tests go through, the number of ranks being its length.
std::vector<std::vector<uint32_t>> all_shares() {
  std::vector<std::vector<uint32_t>> all = {
      {1, 3}, {5, 1, 2}, {1, 1, 1, 9}, {1000, 1}, {200, 300, 100, 150, 250}};
  for (uint32_t ranks = 1; ranks <= 8; ++ranks) all.emplace_back(ranks, 1);
  return all;
}

TEST(Divide, CoversEverythingOnceInWholeGranulesAndNearToTheShares) {
  for (const std::vector<uint32_t>& shares : all_shares()) {
    const uint64_t total = std::accumulate(shares.begin(), shares.end(), uint64_t{0});
    for (uint32_t size = 0; size <= 70; ++size) {
      for (uint32_t granule : {1u, 2u, 7u, 16u, 32u}) {
        const std::vector<Slice> slices = divide(size, granule, shares);
        ASSERT_EQ(slices.size(), shares.size());
        const uint32_t granules = (size + granule - 1) / granule;
        uint32_t next = 0;
        for (size_t rank = 0; rank < slices.size(); ++rank) {
          const Slice& slice = slices[rank];
          ASSERT_EQ(slice.first, next);
          next = slice.end();
          ASSERT_TRUE(next % granule == 0 || next == size);
          ASSERT_TRUE(slice.count > 0 || granules < shares.size()) << size << " in " << granule;
          // Within a granule of what is fair, but for those that others must have.
          const double fair = static_cast<double>(granules) * shares[rank] / static_cast<double>(total);
          ASSERT_LT(slice.count, (fair + 1) * granule + 1e-9);
          ASSERT_GT(slice.count + granule * static_cast<double>(shares.size()), (fair - 1) * granule);
        }
        ASSERT_EQ(next, size);
      }
    }
  }
}

TEST(Divide, GivesWhatIsLeftToTheLargestRemaindersAndThenToLowerRanks) {
  const auto counts = [](uint32_t size, std::vector<uint32_t> shares) {
    std::vector<uint32_t> sizes;
    for (const Slice& slice : divide(size, 1, shares)) sizes.push_back(slice.count);
    return sizes;
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(counts(8, {1, 1, 1}), ElementsAre(3, 3, 2));
  EXPECT_THAT(counts(10, {2, 1, 1}), ElementsAre(5, 3, 2));
  EXPECT_THAT(counts(10, {1, 3, 3}), ElementsAre(2, 4, 4));  // 1.43, 4.29, 4.29
  EXPECT_THAT(counts(2, {1, 1, 1}), ElementsAre(1, 1, 0));
  EXPECT_THAT(counts(4, {100, 1, 1}), ElementsAre(2, 1, 1));
}

const char* const kModels[] = {"models/llama",
                               "models/llama_tied",
                               "models/qwen2",
                               "models/gemma2",
                               "models/gemma3",
                               "models/mixtral",
                               "models/qwen3_moe",
                               "models/glm4_moe",
                               "models/deepseek_v2",
                               "models/deepseek_v3",
                               "models/gpt_oss_mxfp4",
                               "models/qwen3_next",
                               "gguf/qwen3_5-f16.gguf",
                               "quants/llama_q-Q4_K_M/model.gguf",
                               "quants/llama_q-Q5_0/model.gguf",
                               "mlx/mlx_dense-4bit",
                               "mlx/mlx_moe-4bit"};

struct Model {
  formats::Checkpoint checkpoint;
  DecoderSpec spec;
};

Model open(const std::string& name) {
  auto checkpoint = formats::Checkpoint::open(std::string(SHOAL_SOURCE_DIR "/tests/fixtures/") + name);
  EXPECT_TRUE(checkpoint) << name;
  auto spec = read_decoder_spec(*checkpoint);
  EXPECT_TRUE(spec) << name;
  return {*std::move(checkpoint), *std::move(spec)};
}

// How often each of `size` things is held.
std::vector<int> held(uint32_t size, std::span<const Slice> slices) {
  std::vector<int> times(size);
  for (const Slice& slice : slices)
    for (uint32_t i = slice.first; i < slice.end(); ++i) ++times.at(i);
  return times;
}

class AllRanks {
 public:
  AllRanks(const Model& model, const std::vector<uint32_t>& shares) {
    for (uint32_t rank = 0; rank < shares.size(); ++rank) {
      auto plan = shard_plan(model.spec, model.checkpoint,
                             {.rank = rank, .count = static_cast<uint32_t>(shares.size()), .shares = shares});
      EXPECT_TRUE(plan) << plan.error().text();
      plans_.push_back(*std::move(plan));
    }
  }

  std::vector<Slice> slices(size_t layer, Slice LayerShard::* part) const {
    std::vector<Slice> all;
    for (const ShardPlan& plan : plans_) all.push_back(plan.layers[layer].*part);
    return all;
  }
  const std::vector<ShardPlan>& plans() const { return plans_; }

 private:
  std::vector<ShardPlan> plans_;
};

void expect_once(uint32_t size, const std::vector<Slice>& slices) {
  EXPECT_THAT(held(size, slices), ::testing::Each(1));
}

void check_mixer(const LayerSpec& layer, size_t index, const AllRanks& ranks) {
  const auto heads = ranks.slices(index, &LayerShard::heads), kv = ranks.slices(index, &LayerShard::kv_heads);
  if (const auto* attention = std::get_if<AttentionSpec>(&layer.mixer)) {
    expect_once(attention->query_heads, heads);
    const uint32_t group = attention->query_heads / attention->kv_heads;
    for (size_t rank = 0; rank < heads.size(); ++rank) {  // exactly the kv heads that its queries read
      ASSERT_EQ(heads[rank].count == 0, kv[rank].count == 0);
      if (heads[rank].count == 0) continue;
      EXPECT_EQ(kv[rank].first, heads[rank].first / group);
      EXPECT_EQ(kv[rank].end(), (heads[rank].end() - 1) / group + 1);
    }
  } else if (const auto* latent = std::get_if<LatentAttentionSpec>(&layer.mixer)) {
    expect_once(latent->heads, heads);
  } else {
    const auto& op = std::get<DeltaNetSpec>(layer.mixer).op;
    expect_once(op.value_heads, heads);
    if (!keeps_key_heads(op)) return expect_once(op.key_heads, kv);
    for (size_t rank = 0; rank < heads.size(); ++rank)
      EXPECT_EQ(kv[rank], (Slice{0, heads[rank].count == 0 ? 0 : op.key_heads}));
  }
}

void check_feed_forward(const LayerSpec& layer, size_t index, const AllRanks& ranks) {
  const auto columns = ranks.slices(index, &LayerShard::columns);
  if (const auto* dense = std::get_if<DenseSpec>(&layer.feed_forward))
    return expect_once(dense->width, columns);
  const auto& mixture = std::get<MixtureSpec>(layer.feed_forward);
  const uint32_t experts = mixture.router_op.expert_count;
  if (mixture.shared) expect_once(mixture.shared->width, ranks.slices(index, &LayerShard::shared_columns));
  std::vector<int> bias(experts);
  for (uint32_t expert = 0; expert < experts; ++expert) {
    std::vector<Slice> own;  // columns of this expert
    for (const ShardPlan& plan : ranks.plans()) {
      const LayerShard& shard = plan.layers[index];
      if (shard.experts.first > expert || shard.experts.end() <= expert) continue;
      own.push_back(shard.columns);
      bias[expert] += shard.adds_expert_bias ? 1 : 0;
    }
    expect_once(mixture.width, own);
  }
  EXPECT_THAT(bias, ::testing::Each(1));
}

TEST(ShardPlan, RanksHoldEverythingExactlyOnce) {
  size_t with_whole_experts = 0, with_shared_kv_heads = 0, with_nothing = 0;
  for (const char* name : kModels) {
    const Model model = open(name);
    for (const std::vector<uint32_t>& shares : all_shares()) {
      SCOPED_TRACE(fmt::format("{} over {}", name, fmt::join(shares, ",")));
      const AllRanks ranks(model, shares);
      for (size_t layer = 0; layer < model.spec.layers.size(); ++layer) {
        check_mixer(model.spec.layers[layer], layer, ranks);
        check_feed_forward(model.spec.layers[layer], layer, ranks);
        const LayerShard& last = ranks.plans().back().layers[layer];
        with_whole_experts += last.experts.first > 0 ? 1 : 0;
        with_nothing += last.columns.count == 0 ? 1 : 0;
        const auto* attention = std::get_if<AttentionSpec>(&model.spec.layers[layer].mixer);
        const uint32_t group = attention ? attention->query_heads / attention->kv_heads : 1;
        with_shared_kv_heads += last.heads.first % group != 0 ? 1 : 0;
      }
      std::vector<Slice> head;
      for (const ShardPlan& plan : ranks.plans()) {
        EXPECT_EQ(plan.head_rows, ranks.plans().front().head_rows);
        head.push_back(plan.own_head_rows);
      }
      expect_once(model.spec.vocabulary_size, head);
    }
  }
  EXPECT_GT(with_whole_experts, 0u);
  EXPECT_GT(with_shared_kv_heads, 0u);
  EXPECT_GT(with_nothing, 0u);
}

// Bytes of all ranks are those of the model, and once more for every further rank what is whole on each. Kv
// heads that ranks share are not, so layers with such are left out.
TEST(ShardSpec, BytesOfRanksAddUp) {
  size_t compared = 0;
  for (const char* name : kModels) {
    const Model model = open(name);
    const ModelCost whole = *model_cost(model.spec, model.checkpoint);
    const std::vector<LayerCuts> cuts = *layer_cuts(model.spec, model.checkpoint);
    for (const std::vector<uint32_t>& shares : {std::vector<uint32_t>{1, 1}, {1, 2}, {3, 1, 2}}) {
      SCOPED_TRACE(fmt::format("{} over {}", name, fmt::join(shares, ",")));
      const AllRanks ranks(model, shares);
      std::vector<ModelCost> costs;
      uint64_t head = 0;
      for (uint32_t rank = 0; rank < shares.size(); ++rank) {
        const auto own =
            shard_spec(model.spec, model.checkpoint, {rank, static_cast<uint32_t>(shares.size()), shares});
        ASSERT_TRUE(own) << own.error().text();
        const auto cost = model_cost(*own, model.checkpoint);
        ASSERT_TRUE(cost) << cost.error().text();
        costs.push_back(*cost);
        head += cost->head_flops_per_token;
      }
      EXPECT_EQ(head, whole.head_flops_per_token);
      for (size_t layer = 0; layer < whole.layers.size(); ++layer) {
        bool splits = true;
        for (const ShardPlan& plan : ranks.plans()) {
          const LayerShard& shard = plan.layers[layer];
          splits &= shard.heads.count != 0 && shard.columns.count != 0 &&
                    shard.experts.count + shard.columns.count != 0;
          splits &= !std::holds_alternative<MixtureSpec>(model.spec.layers[layer].feed_forward) ||
                    shard.experts.count != 0;
        }
        const auto* attention = std::get_if<AttentionSpec>(&model.spec.layers[layer].mixer);
        uint32_t kv_heads = 0;
        for (const Slice& slice : ranks.slices(layer, &LayerShard::kv_heads)) kv_heads += slice.count;
        if (!splits || (attention && kv_heads != attention->kv_heads)) continue;
        uint64_t bytes = 0;
        for (const ModelCost& cost : costs) bytes += cost.layers[layer].weight_bytes;
        const uint64_t expected =
            whole.layers[layer].weight_bytes + (shares.size() - 1) * cuts[layer].whole_bytes;
        // What biases of experts do on one rank alone, and roundings of each tensor.
        EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(expected),
                    0.02 * static_cast<double>(expected));
        EXPECT_LE(cuts[layer].mixer_bytes + cuts[layer].whole_bytes, whole.layers[layer].weight_bytes);
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 60u);
}

TEST(ShardSpec, OneRankIsTheModelItself) {
  const Model model = open("models/llama");
  const DecoderSpec own = *shard_spec(model.spec, model.checkpoint, {});
  EXPECT_TRUE(own.head_rows.empty());
  EXPECT_EQ(std::get<AttentionSpec>(own.layers[0].mixer).query_heads,
            std::get<AttentionSpec>(model.spec.layers[0].mixer).query_heads);
}

TEST(ShardSpec, RanksAndSharesThatMakeNoSenseAreRefused) {
  const Model model = open("models/llama");
  for (const TensorShard& shard : {TensorShard{0, 0}, TensorShard{2, 2}, TensorShard{0, 2, {1}},
                                   TensorShard{0, 2, {1, 0}}, TensorShard{0, 4'000'000'000u}}) {
    const auto own = shard_spec(model.spec, model.checkpoint, shard);
    ASSERT_FALSE(own.has_value()) << shard.count;
    EXPECT_EQ(own.error().code, ErrorCode::invalid_argument);
  }
}

class PublishedShapes : public MadeCheckpoint {};

// 32 query heads, 8 kv heads; three ranks of one share.
TEST_F(PublishedShapes, KvHeadsStayWholeUnlessTheirRanksWouldWaitForOne) {
  constexpr uint64_t kHidden = 2048, kWidth = 8192;
  const auto read = [&](uint64_t kv_heads) {
    return read_directory(
        fmt::format(R"({{"model_type":"llama","hidden_size":{},"intermediate_size":{},"num_hidden_layers":2,
            "num_attention_heads":32,"num_key_value_heads":{},"head_dim":64,"vocab_size":64}})",
                    kHidden, kWidth, kv_heads),
        PlainShapes{
            .hidden = kHidden, .width = kWidth, .queries = 2048, .keys = 64 * kv_heads, .vocabulary = 64}
            .shapes());
  };
  const auto layer_of = [&](uint64_t kv_heads, const TensorShard& shard) {
    const auto spec = read(kv_heads);
    EXPECT_TRUE(spec) << spec.error().text();
    const auto checkpoint = formats::Checkpoint::open(directory_);
    return shard_plan(*spec, *checkpoint, shard)->layers[0];
  };
  EXPECT_EQ(layer_of(8, {0, 3}).kv_heads, (Slice{0, 3}));
  EXPECT_EQ(layer_of(8, {2, 3}).heads, (Slice{24, 8}));
  EXPECT_EQ(layer_of(2, {0, 3}).heads, (Slice{0, 11}));  // the second rank reads both kv heads
  EXPECT_EQ(layer_of(2, {1, 3}).heads, (Slice{11, 11}));
  EXPECT_EQ(layer_of(2, {1, 3}).kv_heads, (Slice{0, 2}));
  EXPECT_EQ(layer_of(2, {2, 3}).kv_heads, (Slice{1, 1}));
  EXPECT_EQ(layer_of(8, {1, 2, {1, 3}}).kv_heads, (Slice{2, 6}));
  EXPECT_EQ(layer_of(8, {1, 2, {1, 3}}).columns, (Slice{2048, 6144}));
}

}  // namespace
}  // namespace shoal::model
