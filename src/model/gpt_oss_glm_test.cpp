// What the pages of gpt-oss and GLM-4.5 make of configurations.
#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using engine::RouterOp;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two layers of 16 hidden values, 2 query heads of 8; 3 experts of width 5.
struct GptOssShapes {
  bool separate = false;  // as MLX writes

  Shapes shapes() const {
    PlainShapes plain;
    plain.biases = true;
    plain.dense = false;
    Shapes all = plain.shapes();
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      all[layer + "self_attn.o_proj.bias"] = {16};
      all[layer + "self_attn.sinks"] = {2};
      all[layer + "mlp.router.weight"] = {3, 16};
      all[layer + "mlp.router.bias"] = {3};
      const std::string experts = layer + "mlp.experts.";
      if (separate) {
        all[experts + "gate_proj.weight"] = all[experts + "up_proj.weight"] = {3, 5, 16};
        all[experts + "down_proj.weight"] = {3, 16, 5};
        all[experts + "gate_proj.bias"] = all[experts + "up_proj.bias"] = {3, 5};
        all[experts + "down_proj.bias"] = {3, 16};
      } else {
        all[experts + "gate_up_proj"] = {3, 16, 10};
        all[experts + "gate_up_proj_bias"] = {3, 10};
        all[experts + "down_proj"] = {3, 5, 16};
        all[experts + "down_proj_bias"] = {3, 16};
      }
    }
    return all;
  }
};

class GptOssPage : public MadeCheckpoint {
 protected:
  Result<DecoderSpec> read_with(const std::string& rest = "", const GptOssShapes& shapes = {}) {
    return read_directory(fmt::format(R"({{"model_type":"gpt_oss","num_hidden_layers":2,"hidden_size":16,
        "num_attention_heads":2,"num_key_value_heads":1,"head_dim":8,"vocab_size":32,"intermediate_size":5,
        "num_local_experts":3,"num_experts_per_tok":2{}}})",
                                      rest),
                          shapes.shapes());
  }
};

TEST_F(GptOssPage, UnquantisedExpertsHaveInputsFirstAndAlternatingColumns) {
  const auto spec = read_with();
  ASSERT_TRUE(spec) << spec.error().text();
  const MixtureSpec& mixture = mixture_of(*spec, 1);
  ASSERT_EQ(mixture.up.size(), 3u);
  EXPECT_TRUE(mixture.up[2].transposed);
  EXPECT_EQ(mixture.up[2].columns.first, 1u);
  EXPECT_EQ(mixture.up[2].columns.stride, 2u);
  EXPECT_EQ(mixture.up[2].columns.count, 5u);
  EXPECT_TRUE(mixture.down[2].transposed);
  EXPECT_EQ(mixture.up_bias[2].rows.first, 1u);
  EXPECT_EQ(mixture.gate_bias[1].index, 1u);
  EXPECT_EQ(mixture.router_bias.name, "model.layers.1.mlp.router.bias");
  EXPECT_EQ(mixture.router_op.score, RouterOp::Score::softmax);
  EXPECT_TRUE(mixture.router_op.normalise) << "a softmax over the chosen experts";
}

TEST_F(GptOssPage, QuantisedExpertsHaveOutputsFirstAndAlternatingRows) {
  const std::filesystem::path root = SHOAL_SOURCE_DIR;
  const auto checkpoint = formats::Checkpoint::open(root / "tests/fixtures/models/gpt_oss_mxfp4");
  ASSERT_TRUE(checkpoint) << checkpoint.error().text();
  const auto spec = read_decoder_spec(*checkpoint);
  ASSERT_TRUE(spec) << spec.error().text();
  const MixtureSpec& mixture = mixture_of(*spec, 3);
  EXPECT_FALSE(mixture.gate[7].transposed);
  EXPECT_EQ(mixture.gate[7].rows.first, 0u);
  EXPECT_EQ(mixture.gate[7].rows.stride, 2u);
  EXPECT_EQ(mixture.up[7].rows.first, 1u);
  EXPECT_EQ(mixture.gate[7].index, 7u);
  EXPECT_THAT(windows_of(*spec), ElementsAre(32, 0, 32, 0));
}

TEST_F(GptOssPage, ReadsSeparateStacksOfMlx) {
  const auto spec = read_with("", {.separate = true});
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(mixture_of(*spec, 0).gate[1].name, "model.layers.0.mlp.experts.gate_proj.weight");
  EXPECT_FALSE(mixture_of(*spec, 0).gate[1].transposed);
}

TEST_F(GptOssPage, AbsentFieldsMeanWhatTheFamilySays) {
  const auto spec = read_with();
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_THAT(windows_of(*spec), ElementsAre(128, 0));
  const AttentionSpec& attention = attention_of(*spec, 0);
  EXPECT_FLOAT_EQ(attention.rope.magnitude, static_cast<float>(0.1 * std::log(32.0) + 1)) << "yarn by 32";
  EXPECT_FLOAT_EQ(attention.rope.inverse_frequencies.front(), 1);
  EXPECT_FLOAT_EQ(attention.rope.inverse_frequencies.back(),
                  static_cast<float>(std::pow(150000, -0.75) / 32));
  EXPECT_EQ(attention.sinks.name, "model.layers.0.self_attn.sinks");
  EXPECT_EQ(attention.output_bias.name, "model.layers.0.self_attn.o_proj.bias");
  const engine::Activation& activation = mixture_of(*spec, 0).activation;
  EXPECT_EQ(activation.kind, engine::Activation::Kind::clamped_swiglu);
  EXPECT_FLOAT_EQ(activation.alpha, 1.702F);
  EXPECT_FLOAT_EQ(activation.limit, 7);
}

TEST_F(GptOssPage, FieldsAreUsedOrRefused) {
  const auto spec = read_with(R"(,"layer_types":["full_attention","sliding_attention"],"sliding_window":4,
      "swiglu_limit":3.5,"rope_scaling":{"rope_type":"default"},"rope_theta":100)");
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_THAT(windows_of(*spec), ElementsAre(0, 4));
  EXPECT_FLOAT_EQ(mixture_of(*spec, 0).activation.limit, 3.5F);
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).rope.magnitude, 1);
  const std::pair<const char*, const char*> changes[] = {
      {R"(,"hidden_act":"gelu")", "'hidden_act' is \"gelu\""},
      {R"(,"layer_types":["full_attention","linear_attention"])", "'layer_types' is "},
      {R"(,"num_experts_per_tok":4)", "4 experts cannot be chosen"}};
  for (const auto& [change, named] : changes) {
    const auto refused = read_with(change);
    ASSERT_FALSE(refused) << change;
    EXPECT_THAT(refused.error().message, HasSubstr(named));
  }
}

class GlmPage : public MadeCheckpoint {
 protected:
  static Shapes shapes(bool head_norms, bool biases) {
    PlainShapes plain;
    plain.head_norms = head_norms;
    plain.biases = biases;
    Shapes all = plain.shapes();
    const std::string mixture = "model.layers.1.mlp.";
    std::erase_if(all, [&](const auto& entry) { return entry.first.starts_with(mixture); });
    all[mixture + "gate.weight"] = {4, 16};
    all[mixture + "gate.e_score_correction_bias"] = {4};
    for (const std::string own :
         {"experts.0.", "experts.1.", "experts.2.", "experts.3.", "shared_experts."}) {
      all[mixture + own + "gate_proj.weight"] = all[mixture + own + "up_proj.weight"] = {5, 16};
      all[mixture + own + "down_proj.weight"] = {16, 5};
    }
    return all;
  }

  Result<DecoderSpec> read_with(const std::string& rest, const Shapes& tensors) {
    return read_directory(fmt::format(R"({{"model_type":"glm4_moe","num_hidden_layers":2,"hidden_size":16,
        "num_attention_heads":2,"num_key_value_heads":1,"head_dim":8,"vocab_size":32,"intermediate_size":24,
        "n_routed_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":5{}}})",
                                      rest),
                          tensors);
  }
};

TEST_F(GlmPage, AbsentFieldsMeanWhatTheFamilySays) {
  const auto spec = read_with("", shapes(false, false));
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(spec->norm_epsilon, 1e-5F);
  const AttentionSpec& attention = attention_of(*spec, 1);
  EXPECT_EQ(attention.rope.dimensions, 4u) << "half of the head";
  EXPECT_EQ(attention.rope.pairs, engine::RopePairs::halves);
  EXPECT_TRUE(attention.query_norm.empty());
  EXPECT_EQ(dense_of(*spec, 0).width, 24u);
  const MixtureSpec& mixture = mixture_of(*spec, 1);
  EXPECT_EQ(mixture.router_op.score, RouterOp::Score::sigmoid);
  EXPECT_EQ(mixture.router_op.group_count, 1u);
  EXPECT_EQ(mixture.router_op.scale, 1.0F);
  EXPECT_TRUE(mixture.router_op.normalise);
  EXPECT_EQ(mixture.choice_bias.name, "model.layers.1.mlp.gate.e_score_correction_bias");
  EXPECT_EQ(mixture.shared->width, 5u);
}

TEST_F(GlmPage, BiasesAreOfQueriesKeysAndValuesAlone) {
  Shapes tensors = shapes(true, true);
  tensors["model.layers.2.eh_proj.weight"] = {16, 32};
  const auto spec = read_with(R"(,"use_qk_norm":true,"attention_bias":true,"n_group":2,"topk_group":1,
      "num_nextn_predict_layers":1,"routed_scaling_factor":2.5,"norm_topk_prob":false)",
                              tensors);
  ASSERT_TRUE(spec) << spec.error().text();
  const AttentionSpec& attention = attention_of(*spec, 0);
  EXPECT_EQ(attention.value_bias.name, "model.layers.0.self_attn.v_proj.bias");
  EXPECT_TRUE(attention.output_bias.empty());
  EXPECT_EQ(attention.key_norm.name, "model.layers.0.self_attn.k_norm.weight");
  const RouterOp& router = mixture_of(*spec, 1).router_op;
  EXPECT_EQ(router.group_count, 2u);
  EXPECT_EQ(router.scale, 2.5F);
  EXPECT_FALSE(router.normalise);
}

TEST_F(GlmPage, GgufCountsTheBlockThatPredictsFurtherTokens) {
  GgufValues values = {{"general.architecture", "glm4moe"},
                       {"glm4moe.attention.layer_norm_rms_epsilon", 1e-5F},
                       {"glm4moe.expert_weights_scale", 2.5F}};
  const std::pair<const char*, uint32_t> numbers[] = {
      {"block_count", 2},          {"nextn_predict_layers", 1},
      {"embedding_length", 16},    {"context_length", 64},
      {"attention.head_count", 2}, {"attention.head_count_kv", 1},
      {"attention.key_length", 8}, {"attention.value_length", 8},
      {"rope.dimension_count", 4}, {"feed_forward_length", 24},
      {"expert_count", 4},         {"expert_used_count", 2},
      {"expert_shared_count", 1},  {"expert_feed_forward_length", 5}};
  for (const auto& [key, number] : numbers) values[std::string("glm4moe.") + key] = number;
  Shapes tensors = {{"token_embd.weight", {32, 16}},
                    {"output_norm.weight", {16}},
                    {"blk.0.attn_norm.weight", {16}},
                    {"blk.0.post_attention_norm.weight", {16}},
                    {"blk.0.attn_q.weight", {16, 16}},
                    {"blk.0.attn_q.bias", {16}},
                    {"blk.0.attn_k.weight", {8, 16}},
                    {"blk.0.attn_v.weight", {8, 16}},
                    {"blk.0.attn_output.weight", {16, 16}},
                    {"blk.0.ffn_gate_inp.weight", {4, 16}},
                    {"blk.0.exp_probs_b.bias", {4}},
                    {"blk.0.ffn_gate_up_exps.weight", {4, 10, 16}},
                    {"blk.0.ffn_down_exps.weight", {4, 16, 5}},
                    {"blk.0.ffn_gate_shexp.weight", {5, 16}},
                    {"blk.0.ffn_up_shexp.weight", {5, 16}},
                    {"blk.0.ffn_down_shexp.weight", {16, 5}},
                    {"blk.1.nextn.enorm.weight", {16}}};
  const auto spec = read_gguf(values, tensors);
  ASSERT_TRUE(spec) << spec.error().text();
  ASSERT_EQ(spec->layer_count(), 1u);
  EXPECT_EQ(attention_of(*spec, 0).query_bias.name, "blk.0.attn_q.bias");
  EXPECT_TRUE(attention_of(*spec, 0).query_norm.empty());
  const MixtureSpec& mixture = mixture_of(*spec, 0);
  EXPECT_EQ(mixture.router_op.score, RouterOp::Score::sigmoid) << "what an absent expert_gating_func means";
  EXPECT_EQ(mixture.router_op.scale, 2.5F);
  EXPECT_EQ(mixture.up[3].rows.first, 5u);
}

}  // namespace
}  // namespace shoal::model
