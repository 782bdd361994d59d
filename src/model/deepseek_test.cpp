// What the pages of DeepSeek's family make of configurations: latent attention, groups of experts, both
// formats.
#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using engine::RouterOp;
using ::testing::HasSubstr;

// H heads of n + r query and v values, rank R, Q of queries (0: none), E experts of width F from layer
// `dense` on.
struct LatentShapes {
  uint64_t layers = 2, hidden = 12, heads = 3, nope = 5, rotated = 4, value = 7, rank = 6, query_rank = 0;
  uint64_t width = 24, experts = 4, expert_width = 9, shared_width = 18, dense = 1;
  bool choice_bias = false;

  Shapes shapes() const {
    Shapes all = {{"model.embed_tokens.weight", {32, hidden}},
                  {"model.norm.weight", {hidden}},
                  {"lm_head.weight", {32, hidden}}};
    for (uint64_t i = 0; i < layers; ++i) {
      const std::string layer = fmt::format("model.layers.{}.", i);
      all[layer + "input_layernorm.weight"] = all[layer + "post_attention_layernorm.weight"] = {hidden};
      add_attention(all, layer + "self_attn.");
      if (i < dense) {
        add_dense(all, layer + "mlp.", width);
      } else {
        add_mixture(all, layer + "mlp.");
      }
    }
    return all;
  }

  void add_attention(Shapes& all, const std::string& own) const {
    if (query_rank == 0) {
      all[own + "q_proj.weight"] = {heads * (nope + rotated), hidden};
    } else {
      all[own + "q_a_proj.weight"] = {query_rank, hidden};
      all[own + "q_a_layernorm.weight"] = {query_rank};
      all[own + "q_b_proj.weight"] = {heads * (nope + rotated), query_rank};
    }
    all[own + "kv_a_proj_with_mqa.weight"] = {rank + rotated, hidden};
    all[own + "kv_a_layernorm.weight"] = {rank};
    all[own + "kv_b_proj.weight"] = {heads * (nope + value), rank};
    all[own + "o_proj.weight"] = {hidden, heads * value};
  }

  void add_dense(Shapes& all, const std::string& own, uint64_t size) const {
    all[own + "gate_proj.weight"] = all[own + "up_proj.weight"] = {size, hidden};
    all[own + "down_proj.weight"] = {hidden, size};
  }

  void add_mixture(Shapes& all, const std::string& own) const {
    all[own + "gate.weight"] = {experts, hidden};
    if (choice_bias) all[own + "gate.e_score_correction_bias"] = {experts};
    for (uint64_t expert = 0; expert < experts; ++expert)
      add_dense(all, fmt::format("{}experts.{}.", own, expert), expert_width);
    if (shared_width != 0) add_dense(all, own + "shared_experts.", shared_width);
  }
};

const LatentAttentionSpec& latent_of(const DecoderSpec& spec, size_t layer) {
  return std::get<LatentAttentionSpec>(spec.layers[layer].mixer);
}

constexpr std::string_view kSizes = R"("num_hidden_layers":2,"hidden_size":12,"num_attention_heads":3,
    "num_key_value_heads":3,"vocab_size":32,"intermediate_size":24,"qk_nope_head_dim":5,"qk_rope_head_dim":4,
    "v_head_dim":7,"kv_lora_rank":6,"n_routed_experts":4,"moe_intermediate_size":9,)";

class DeepseekPage : public MadeCheckpoint {
 protected:
  Result<DecoderSpec> read_v2(const std::string& rest, const LatentShapes& shapes = {}) {
    return read_directory(fmt::format(R"({{"model_type":"deepseek_v2",{}{}}})", kSizes, rest),
                          shapes.shapes());
  }
  Result<DecoderSpec> read_v3(const std::string& rest, LatentShapes shapes,
                              std::string_view type = "deepseek_v3") {
    shapes.choice_bias = true;
    return read_directory(fmt::format(R"({{"model_type":"{}",{}{}}})", type, kSizes, rest), shapes.shapes());
  }

  static constexpr const char* kLite =
      R"("q_lora_rank":null,"first_k_dense_replace":1,"num_experts_per_tok":2,"n_shared_experts":2)";
  static constexpr const char* kV3 =
      R"("q_lora_rank":10,"first_k_dense_replace":1,"num_experts_per_tok":2,"n_shared_experts":2)";
};

TEST_F(DeepseekPage, LiteHasQueriesOfOneMatrixAndTheBestExpertsOfASoftmax) {
  const auto spec = read_v2(
      std::string(kLite) +
      R"(,"topk_method":"greedy","n_group":1,"topk_group":1,"norm_topk_prob":true,"routed_scaling_factor":1.5)");
  ASSERT_TRUE(spec) << spec.error().text();
  const LatentAttentionSpec& attention = latent_of(*spec, 1);
  EXPECT_EQ(attention.query_rank, 0u);
  EXPECT_EQ(attention.query.name, "model.layers.1.self_attn.q_proj.weight");
  EXPECT_FLOAT_EQ(attention.scale, 1 / 3.0F);
  EXPECT_EQ(attention.norm_epsilon, 1e-6F);
  EXPECT_EQ(attention.rope.pairs, engine::RopePairs::interleaved);
  EXPECT_EQ(attention.rope.dimensions, 4u);
  const MixtureSpec& mixture = mixture_of(*spec, 1);
  EXPECT_EQ(mixture.router_op.score, RouterOp::Score::softmax);
  EXPECT_FALSE(mixture.router_op.normalise) << "V2 never renormalises";
  EXPECT_EQ(mixture.router_op.group_count, 1u);
  EXPECT_EQ(mixture.router_op.scale, 1.5F);
  EXPECT_TRUE(mixture.choice_bias.empty());
  EXPECT_EQ(mixture.shared->width, 18u);
  EXPECT_EQ(dense_of(*spec, 0).width, 24u);
}

TEST_F(DeepseekPage, AbsorbedMatricesAreEachHeadsRowsOfTheJointOne) {
  const auto spec = read_v2(kLite);
  ASSERT_TRUE(spec) << spec.error().text();
  const LatentAttentionSpec& attention = latent_of(*spec, 0);
  ASSERT_EQ(attention.key_up.size(), 3u);
  ASSERT_EQ(attention.value_up.size(), 3u);
  EXPECT_EQ(attention.key_up[2].rows.first, 24u);
  EXPECT_EQ(attention.key_up[2].rows.length, 5u);
  EXPECT_TRUE(attention.key_up[2].transposed);
  EXPECT_EQ(attention.value_up[2].rows.first, 29u);
  EXPECT_EQ(attention.value_up[2].rows.length, 7u);
  EXPECT_FALSE(attention.value_up[2].transposed);
}

TEST_F(DeepseekPage, GroupsOfV2CountByTheirBestExpert) {
  const auto spec =
      read_v2(std::string(kLite) + R"(,"topk_method":"group_limited_greedy","n_group":2,"topk_group":1)");
  ASSERT_TRUE(spec) << spec.error().text();
  const RouterOp& router = mixture_of(*spec, 1).router_op;
  EXPECT_EQ(router.group_count, 2u);
  EXPECT_EQ(router.used_groups, 1u);
  EXPECT_EQ(router.group_score, RouterOp::GroupScore::maximum);
}

TEST_F(DeepseekPage, V3ChoosesBySigmoidsWithABiasAndDownProjectsQueries) {
  LatentShapes shapes;
  shapes.query_rank = 10;
  const auto spec = read_v3(std::string(kV3) + R"(,"n_group":2,"topk_group":1,"rms_norm_eps":1e-5)", shapes);
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(spec->norm_epsilon, 1e-5F);
  EXPECT_EQ(latent_of(*spec, 1).norm_epsilon, 1e-6F);
  EXPECT_EQ(latent_of(*spec, 1).query_rank, 10u);
  const MixtureSpec& mixture = mixture_of(*spec, 1);
  EXPECT_EQ(mixture.choice_bias.name, "model.layers.1.mlp.gate.e_score_correction_bias");
  EXPECT_EQ(mixture.router_op.score, RouterOp::Score::sigmoid);
  EXPECT_EQ(mixture.router_op.group_score, RouterOp::GroupScore::top_two_sum);
  EXPECT_TRUE(mixture.router_op.normalise);
  EXPECT_EQ(mixture.router_op.scale, 2.5F) << "what the family means by an absent routed_scaling_factor";
}

TEST_F(DeepseekPage, KimiHasOneGroup) {
  LatentShapes shapes;
  shapes.query_rank = 10;
  const auto spec = read_v3(std::string(kV3) + R"(,"n_group":1,"topk_group":1,"rope_interleave":false,
      "architectures":["DeepseekV3ForCausalLM"])",
                            shapes, "kimi_k2");
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(mixture_of(*spec, 1).router_op.group_count, 1u);
  EXPECT_EQ(latent_of(*spec, 0).rope.pairs, engine::RopePairs::halves);
}

TEST_F(DeepseekPage, YarnSharpensTheScores) {
  const auto spec = read_v2(std::string(kLite) + R"(,"rope_scaling":{"type":"yarn","factor":40,
      "original_max_position_embeddings":64,"mscale":0.707,"mscale_all_dim":0.707})");
  ASSERT_TRUE(spec) << spec.error().text();
  const double factor = 0.1 * 0.707 * std::log(40.0) + 1;
  EXPECT_FLOAT_EQ(latent_of(*spec, 0).scale, static_cast<float>(factor * factor / 3));
  EXPECT_FLOAT_EQ(latent_of(*spec, 0).rope.magnitude, 1);
}

TEST_F(DeepseekPage, ReadsSplitMatricesAndStacksOfMlx) {
  LatentShapes sizes;
  Shapes shapes = sizes.shapes();
  for (const char* layer : {"model.layers.0.self_attn.", "model.layers.1.self_attn."}) {
    shapes.erase(layer + std::string("kv_b_proj.weight"));
    shapes[layer + std::string("embed_q.weight")] = {3, 6, 5};
    shapes[layer + std::string("unembed_out.weight")] = {3, 7, 6};
  }
  std::erase_if(shapes, [](const auto& entry) { return entry.first.contains(".experts."); });
  shapes["model.layers.1.mlp.switch_mlp.gate_proj.weight"] =
      shapes["model.layers.1.mlp.switch_mlp.up_proj.weight"] = {4, 9, 12};
  shapes["model.layers.1.mlp.switch_mlp.down_proj.weight"] = {4, 12, 9};
  const auto spec =
      read_directory(fmt::format(R"({{"model_type":"deepseek_v2",{}{}}})", kSizes, kLite), shapes);
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(latent_of(*spec, 1).key_up[2].index, 2u);
  EXPECT_FALSE(latent_of(*spec, 1).key_up[2].transposed);
  EXPECT_EQ(mixture_of(*spec, 1).down[3].index, 3u);
}

TEST_F(DeepseekPage, IgnoresTheLayerThatPredictsFurtherTokens) {
  Shapes shapes = LatentShapes().shapes();
  shapes["model.layers.2.eh_proj.weight"] = {12, 24};
  EXPECT_TRUE(read_directory(fmt::format(R"({{"model_type":"deepseek_v2",{}{}}})", kSizes, kLite), shapes));
}

TEST_F(DeepseekPage, SharedExpertsMayBeNoneAndAllLayersDense) {
  LatentShapes shapes;
  shapes.shared_width = 0;
  const auto none = read_v2(
      R"("q_lora_rank":null,"first_k_dense_replace":1,"num_experts_per_tok":2,"n_shared_experts":null)",
      shapes);
  ASSERT_TRUE(none) << none.error().text();
  EXPECT_FALSE(mixture_of(*none, 1).shared);
  shapes.dense = 2;
  const auto dense = read_v2(
      R"("q_lora_rank":null,"first_k_dense_replace":2,"num_experts_per_tok":2,"n_shared_experts":0)", shapes);
  ASSERT_TRUE(dense) << dense.error().text();
  EXPECT_EQ(dense_of(*dense, 1).width, 24u);
}

TEST_F(DeepseekPage, RefusesByNameWhatChangesTheMaths) {
  const std::pair<const char*, const char*> changes[] = {
      {R"("index_topk":2048)", "'index_topk' is 2048"},
      {R"("topk_method":"noaux_tc")", "'topk_method' is \"noaux_tc\""},
      {R"("scoring_func":"sigmoid")", "'scoring_func' is \"sigmoid\""},
      {R"("rope_interleave":false)", "'rope_interleave' is false"},
      {R"("hidden_act":"relu")", "'hidden_act' is \"relu\""}};
  for (const auto& [change, named] : changes) {
    const auto spec = read_v2(fmt::format("{},{}", kLite, change));
    ASSERT_FALSE(spec) << change;
    EXPECT_EQ(spec.error().code, ErrorCode::unsupported) << change;
    EXPECT_THAT(spec.error().message, HasSubstr(named)) << change;
  }
}

TEST_F(DeepseekPage, RefusesNumbersThatDoNotFitTogether) {
  for (const char* change :
       {R"("topk_method":"group_limited_greedy","n_group":3,"topk_group":1)",
        R"("topk_method":"group_limited_greedy","n_group":2,"topk_group":3)",
        R"("topk_method":"group_limited_greedy","n_group":4,"topk_group":1)", R"("qk_rope_head_dim":3)",
        R"("n_routed_experts":1)", R"("n_shared_experts":4096,"moe_intermediate_size":1000000)"}) {
    const auto spec = read_v2(fmt::format("{},{}", kLite, change));
    ASSERT_FALSE(spec) << change;
    EXPECT_EQ(spec.error().code, ErrorCode::malformed) << change << ": " << spec.error().message;
  }
}

// The configuration of the directory above as GGUF metadata. `split` as files since the latents' cache.
struct LatentGguf {
  bool split = true;

  GgufValues values() const {
    GgufValues all = {{"general.architecture", "deepseek2"},
                      {"deepseek2.block_count", 3u},
                      {"deepseek2.nextn_predict_layers", 1u},
                      {"deepseek2.embedding_length", 12u},
                      {"deepseek2.context_length", 64u},
                      {"deepseek2.attention.head_count", 3u},
                      {"deepseek2.attention.head_count_kv", split ? 1u : 3u},
                      {"deepseek2.attention.layer_norm_rms_epsilon", 1e-6F},
                      {"deepseek2.attention.kv_lora_rank", 6u},
                      {"deepseek2.attention.key_length", split ? 10u : 9u},
                      {"deepseek2.attention.value_length", split ? 6u : 7u},
                      {"deepseek2.rope.dimension_count", 4u},
                      {"deepseek2.feed_forward_length", 24u},
                      {"deepseek2.leading_dense_block_count", 1u},
                      {"deepseek2.expert_count", 4u},
                      {"deepseek2.expert_used_count", 2u},
                      {"deepseek2.expert_feed_forward_length", 9u},
                      {"deepseek2.expert_shared_count", 2u},
                      {"deepseek2.expert_weights_scale", 1.5F}};
    if (!split) return all;
    all["deepseek2.attention.key_length_mla"] = 9u;
    all["deepseek2.attention.value_length_mla"] = 7u;
    all["deepseek2.expert_gating_func"] = 2u;
    return all;
  }

  Shapes shapes() const {
    Shapes all = {{"token_embd.weight", {32, 12}},
                  {"output_norm.weight", {12}},
                  {"blk.2.nextn.eh_proj.weight", {12, 24}}};
    for (const std::string layer : {"blk.0.", "blk.1."}) {
      all[layer + "attn_norm.weight"] = all[layer + "ffn_norm.weight"] = {12};
      all[layer + "attn_q.weight"] = {27, 12};
      all[layer + "attn_kv_a_mqa.weight"] = {10, 12};
      all[layer + "attn_kv_a_norm.weight"] = {6};
      all[layer + "attn_output.weight"] = {12, 21};
      if (split) {
        all[layer + "attn_k_b.weight"] = {3, 6, 5};
        all[layer + "attn_v_b.weight"] = {3, 7, 6};
      } else {
        all[layer + "attn_kv_b.weight"] = {36, 6};
      }
    }
    all["blk.0.ffn_gate.weight"] = all["blk.0.ffn_up.weight"] = {24, 12};
    all["blk.0.ffn_down.weight"] = {12, 24};
    all["blk.1.ffn_gate_inp.weight"] = {4, 12};
    all["blk.1.ffn_gate_exps.weight"] = all["blk.1.ffn_up_exps.weight"] = {4, 9, 12};
    all["blk.1.ffn_down_exps.weight"] = {4, 12, 9};
    all["blk.1.ffn_gate_shexp.weight"] = all["blk.1.ffn_up_shexp.weight"] = {18, 12};
    all["blk.1.ffn_down_shexp.weight"] = {12, 18};
    if (split) all["blk.1.exp_probs_b.bias"] = {4};
    return all;
  }
};

TEST_F(DeepseekPage, GgufSaysHeadSizesInEitherOfTwoWays) {
  for (const bool split : {true, false}) {
    const LatentGguf made{split};
    const auto spec = read_gguf(made.values(), made.shapes());
    ASSERT_TRUE(spec) << split << ": " << spec.error().text();
    ASSERT_EQ(spec->layer_count(), 2u) << "the last block predicts further tokens";
    const LatentAttentionSpec& attention = latent_of(*spec, 1);
    EXPECT_EQ(attention.nope_dim, 5u);
    EXPECT_EQ(attention.value_dim, 7u);
    EXPECT_FLOAT_EQ(attention.scale, 1 / 3.0F);
    EXPECT_EQ(attention.key_up[1].transposed, !split);
    const MixtureSpec& mixture = mixture_of(*spec, 1);
    EXPECT_EQ(mixture.router_op.score, split ? RouterOp::Score::sigmoid : RouterOp::Score::softmax);
    EXPECT_EQ(mixture.router_op.scale, 1.5F);
    EXPECT_EQ(mixture.choice_bias.empty(), !split);
    EXPECT_EQ(mixture.shared->width, 18u);
  }
}

TEST_F(DeepseekPage, GgufSaysWhenItsNumbersDoNotFit) {
  LatentGguf made;
  GgufValues values = made.values();
  values["deepseek2.rope.dimension_count"] = 9u;
  EXPECT_EQ(read_gguf(values, made.shapes()).error().code, ErrorCode::malformed);
  values = made.values();
  values["deepseek2.expert_gating_func"] = 3u;
  EXPECT_EQ(read_gguf(values, made.shapes()).error().code, ErrorCode::unsupported);
  values = made.values();
  values["deepseek2.nextn_predict_layers"] = 3u;
  EXPECT_EQ(read_gguf(values, made.shapes()).error().code, ErrorCode::malformed);
}

}  // namespace
}  // namespace shoal::model
