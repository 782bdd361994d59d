// What the pages of Mistral, Mixtral, Qwen2, Qwen3 and Qwen3-MoE read, and what their absent fields mean.
#include <cmath>
#include <gmock/gmock.h>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Pages = MadeCheckpoint;

// Two query heads and one kv head of 8 values; `more` adds fields.
std::string config(const std::string& type, const std::string& more, int layers = 2) {
  return fmt::format(R"({{"model_type":"{}","hidden_size":16,"intermediate_size":24,"num_hidden_layers":{},
      "num_attention_heads":2,"num_key_value_heads":1,"vocab_size":32{}{}}})",
                     type, layers, more.empty() ? "" : ",", more);
}

TEST_F(Pages, MistralHasAWindowOf4096UnlessItSaysOtherwise) {
  const std::pair<const char*, uint32_t> cases[] = {
      {"", 4096}, {R"("sliding_window":null)", 0}, {R"("sliding_window":24)", 24}};
  for (const auto& [more, window] : cases) {
    const auto spec = read_directory(config("mistral", more), PlainShapes().shapes());
    ASSERT_TRUE(spec) << more << ": " << spec.error().text();
    EXPECT_THAT(windows_of(*spec), Each(window)) << more;
    EXPECT_EQ(spec->context_tokens, 131072u);
    EXPECT_FLOAT_EQ(spec->norm_epsilon, 1e-6f);
  }
}

TEST_F(Pages, MistralWithLayerTypesHasWindowsWhereTheySaySo) {
  const auto spec = read_directory(
      config("mistral", R"("layer_types":["full_attention","sliding_attention"],"sliding_window":8)"),
      PlainShapes().shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_THAT(windows_of(*spec), ElementsAre(0, 8));
}

TEST_F(Pages, AbsentKvHeadsAreEightForMistralAndNullMeansAsManyAsQueryHeads) {
  PlainShapes shapes{.hidden = 64, .queries = 128, .keys = 64};
  const std::string common = R"({"model_type":"mistral","hidden_size":64,"intermediate_size":24,
      "num_hidden_layers":2,"num_attention_heads":16,"head_dim":8,"vocab_size":32)";
  const auto absent = read_directory(common + "}", shapes.shapes());
  ASSERT_TRUE(absent) << absent.error().text();
  EXPECT_EQ(attention_of(*absent, 0).kv_heads, 8u);
  shapes.keys = 128;
  const auto null = read_directory(common + R"(,"num_key_value_heads":null})", shapes.shapes());
  ASSERT_TRUE(null) << null.error().text();
  EXPECT_EQ(attention_of(*null, 0).kv_heads, 16u);
}

TEST_F(Pages, Mistral3IsTheTextModelInsideAMultimodalCheckpoint) {
  for (const std::string prefix : {"language_model.model.", "model.language_model."}) {
    Shapes shapes = PlainShapes{.tied = true, .prefix = prefix}.shapes();
    const std::string head =
        prefix.starts_with("language") ? "language_model.lm_head.weight" : "lm_head.weight";
    shapes[head] = {32, 16};
    shapes["vision_tower.patch_conv.weight"] = {4, 4};
    shapes["multi_modal_projector.linear_1.weight"] = {4, 4};
    const std::string text = config("mistral", R"("sliding_window":null,"rope_theta":1e9)");
    const auto spec = read_directory(
        R"({"model_type":"mistral3","architectures":["Mistral3ForConditionalGeneration"],
            "text_config":)" +
            text + "}",
        shapes);
    ASSERT_TRUE(spec) << spec.error().text();
    EXPECT_EQ(spec->head.name, head);
    EXPECT_EQ(attention_of(*spec, 1).query.name, prefix + "layers.1.self_attn.q_proj.weight");
  }
}

TEST_F(Pages, Ministral3EndsWhereItsQueriesBeginToGrow) {
  const auto spec =
      read_directory(config("ministral3", R"("head_dim":8,"max_position_embeddings":262144,"rope_parameters":{
          "rope_type":"yarn","rope_theta":1e6,"factor":16.0,"original_max_position_embeddings":16384,
          "beta_fast":32.0,"beta_slow":1.0,"mscale":1.0,"mscale_all_dim":1.0,"llama_4_scaling_beta":0.1})"),
                     PlainShapes().shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(spec->context_tokens, 16384u);
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).rope.magnitude, 1);
}

Shapes mixtral_shapes() {
  Shapes shapes = PlainShapes{.dense = false}.shapes();
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.block_sparse_moe.", layer);
    shapes[prefix + "gate.weight"] = {3, 16};
    for (int expert = 0; expert < 3; ++expert) {
      const std::string name = fmt::format("{}experts.{}.", prefix, expert);
      shapes[name + "w1.weight"] = shapes[name + "w3.weight"] = {24, 16};
      shapes[name + "w2.weight"] = {16, 24};
    }
  }
  return shapes;
}

TEST_F(Pages, MixtralChoosesBySoftmaxAndNormalises) {
  const auto spec = read_directory(config("mixtral", R"("num_local_experts":3)"), mixtral_shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  const MixtureSpec& mixture = mixture_of(*spec, 1);
  EXPECT_EQ(mixture.router_op.score, engine::RouterOp::Score::softmax);
  EXPECT_EQ(mixture.router_op.expert_count, 3u);
  EXPECT_EQ(mixture.router_op.used, 2u) << "the default";
  EXPECT_TRUE(mixture.router_op.normalise);
  ASSERT_EQ(mixture.gate.size(), 3u);
  EXPECT_EQ(mixture.gate[2].name, "model.layers.1.block_sparse_moe.experts.2.w1.weight");
  EXPECT_EQ(mixture.up[2].name, "model.layers.1.block_sparse_moe.experts.2.w3.weight");
  EXPECT_EQ(mixture.down[2].name, "model.layers.1.block_sparse_moe.experts.2.w2.weight");
  EXPECT_FLOAT_EQ(spec->norm_epsilon, 1e-5f);
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).rope.inverse_frequencies[1], std::pow(1e6f, -0.25f));
  EXPECT_THAT(windows_of(*spec), Each(0u));
}

TEST_F(Pages, AMissingExpertIsNamed) {
  Shapes shapes = mixtral_shapes();
  shapes.erase("model.layers.1.block_sparse_moe.experts.1.w2.weight");
  const auto spec = read_directory(config("mixtral", R"("num_local_experts":3)"), shapes);
  ASSERT_FALSE(spec);
  EXPECT_THAT(spec.error().message,
              HasSubstr("'model.layers.1.block_sparse_moe.experts.1.w2.weight' is missing"));
}

TEST_F(Pages, Qwen2HasBiasesOnItsInputsAndWindowsOnlyOnTheLastLayersWhenSwitchedOn) {
  const Shapes shapes = PlainShapes{.layers = 3, .biases = true}.shapes();
  const auto off = read_directory(config("qwen2", R"("sliding_window":16)", 3), shapes);
  ASSERT_TRUE(off) << off.error().text();
  EXPECT_THAT(windows_of(*off), Each(0u));
  EXPECT_EQ(attention_of(*off, 0).value_bias.name, "model.layers.0.self_attn.v_proj.bias");
  EXPECT_TRUE(attention_of(*off, 0).output_bias.empty());
  const std::pair<const char*, std::vector<uint32_t>> cases[] = {
      {R"("use_sliding_window":true,"sliding_window":16,"max_window_layers":2)", {0, 0, 16}},
      {R"("use_sliding_window":true,"max_window_layers":1)", {0, 4096, 4096}},
      {R"("use_sliding_window":true,"sliding_window":16)", {0, 0, 0}},  // max_window_layers is 28
      {R"("use_sliding_window":true,"sliding_window":null,"max_window_layers":0)", {0, 0, 0}},
      {R"("use_sliding_window":true,"sliding_window":9,"max_window_layers":0,
          "layer_types":["sliding_attention","full_attention","sliding_attention"])",
       {9, 0, 9}}};
  for (const auto& [more, windows] : cases) {
    const auto spec = read_directory(config("qwen2", more, 3), shapes);
    ASSERT_TRUE(spec) << more << ": " << spec.error().text();
    EXPECT_EQ(windows_of(*spec), windows) << more;
  }
}

TEST_F(Pages, Qwen3HasTheSameWindows) {
  const auto spec = read_directory(
      config("qwen3", R"("head_dim":8,"use_sliding_window":true,"sliding_window":5,"max_window_layers":1)"),
      PlainShapes{.head_norms = true}.shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_THAT(windows_of(*spec), ElementsAre(0, 5));
}

TEST_F(Pages, AHeadThatIsThereIsTheHeadEvenWhereTheConfigurationTiesIt) {
  for (const bool is_there : {true, false}) {
    const auto spec = read_directory(config("llama", R"("tie_word_embeddings":true)"),
                                     PlainShapes{.tied = !is_there}.shapes());
    ASSERT_TRUE(spec) << spec.error().text();
    EXPECT_EQ(spec->head.name, is_there ? "lm_head.weight" : "model.embed_tokens.weight");
  }
}

TEST_F(Pages, Qwen3SaysAtMostThatItNormsQueriesAndKeys) {
  const Shapes shapes = PlainShapes{.head_norms = true}.shapes();
  const auto spec =
      read_directory(config("qwen3", R"("head_dim":8,"use_qk_norm":true,"qkv_bias":false)"), shapes);
  EXPECT_TRUE(spec) << spec.error().text();
  const auto without = read_directory(config("qwen3", R"("head_dim":8,"use_qk_norm":false)"), shapes);
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().message, HasSubstr("'use_qk_norm' is false, which is not supported for qwen3"));
}

Shapes qwen3_moe_shapes(int layers, std::vector<int> sparse, bool fused) {
  Shapes shapes = PlainShapes{.layers = static_cast<uint64_t>(layers), .head_norms = true}.shapes();
  for (const int layer : sparse) {
    const std::string prefix = fmt::format("model.layers.{}.mlp.", layer);
    for (const char* name : {"gate_proj.weight", "up_proj.weight", "down_proj.weight"})
      shapes.erase(prefix + name);
    shapes[prefix + "gate.weight"] = {10, 16};
    if (fused) {
      shapes[prefix + "experts.gate_up_proj"] = {10, 12, 16};
      shapes[prefix + "experts.down_proj"] = {10, 16, 6};
    } else {
      shapes[prefix + "switch_mlp.gate_proj.weight"] =
          shapes[prefix + "switch_mlp.up_proj.weight"] = {10, 6, 16};
      shapes[prefix + "switch_mlp.down_proj.weight"] = {10, 16, 6};
    }
  }
  return shapes;
}

TEST_F(Pages, Qwen3MoeHasExpertsOnTheLayersThatItsStepAndListLeave) {
  const auto spec = read_directory(config("qwen3_moe", R"("num_experts":10,"moe_intermediate_size":6,
          "decoder_sparse_step":2,"mlp_only_layers":[1])",
                                          4),
                                   qwen3_moe_shapes(4, {3}, true));
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(dense_of(*spec, 1).width, 24u);
  const MixtureSpec& mixture = mixture_of(*spec, 3);
  EXPECT_EQ(mixture.router_op.used, 8u) << "the default";
  EXPECT_FALSE(mixture.router_op.normalise) << "the default";
  EXPECT_EQ(mixture.width, 6u);
  ASSERT_EQ(mixture.up.size(), 10u);
  EXPECT_EQ(mixture.up[9].name, "model.layers.3.mlp.experts.gate_up_proj");
  EXPECT_EQ(mixture.up[9].index, 9u);
  EXPECT_EQ(mixture.gate[9].rows.first, 0u);
  EXPECT_EQ(mixture.up[9].rows.first, 6u);
  EXPECT_EQ(mixture.up[9].rows.size(12), 6u);
}

TEST_F(Pages, Qwen3MoeTakesMlxStacksAndTheOtherNameOfItsExpertCount) {
  const auto spec = read_directory(
      config("qwen3_moe", R"("num_local_experts":10,"moe_intermediate_size":6,"num_experts_per_tok":3,
          "norm_topk_prob":true,"use_qk_norm":true,"qkv_bias":false,"shared_expert_intermediate_size":0)"),
      qwen3_moe_shapes(2, {0, 1}, false));
  ASSERT_TRUE(spec) << spec.error().text();
  const MixtureSpec& mixture = mixture_of(*spec, 0);
  EXPECT_TRUE(mixture.router_op.normalise);
  EXPECT_EQ(mixture.router_op.used, 3u);
  EXPECT_EQ(mixture.down[4].name, "model.layers.0.mlp.switch_mlp.down_proj.weight");
  EXPECT_EQ(mixture.down[4].index, 4u);
  EXPECT_EQ(attention_of(*spec, 0).query_norm.name, "model.layers.0.self_attn.q_norm.weight");
}

TEST_F(Pages, AHundredThousandExpertsThatAreNotThereCostNothing) {
  const auto spec = read_directory(config("qwen3_moe", R"("num_experts":4096,"num_hidden_layers":1024)"),
                                   PlainShapes().shapes());
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::malformed);
}

}  // namespace
}  // namespace shoal::model
