// What the pages of Qwen3-Next and Qwen3.5 make of configurations: the delta nets' rows, gates, mixtures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two layers, a delta net and attention: 2 key heads of 6, 4 value heads of 5, 3 taps; 2 query heads of 8.
struct HybridShapes {
  std::string prefix = "model.";
  bool grouped = true;  // Qwen3-Next
  bool attention_bias = false;
  bool fused_experts = false;
  bool dense = false;
  bool tied = false;
  std::vector<uint64_t> taps = {44, 1, 3};

  Shapes shapes() const {
    Shapes all = {{prefix + "embed_tokens.weight", {32, 12}}, {prefix + "norm.weight", {12}}};
    if (!tied) all["lm_head.weight"] = {32, 12};
    for (const char* number : {"0", "1"}) {
      const std::string layer = prefix + "layers." + number + ".";
      all[layer + "input_layernorm.weight"] = all[layer + "post_attention_layernorm.weight"] = {12};
      add_feed_forward(all, layer + "mlp.");
    }
    add_delta_net(all, prefix + "layers.0.linear_attn.");
    add_attention(all, prefix + "layers.1.self_attn.");
    return all;
  }

  void add_delta_net(Shapes& all, const std::string& own) const {
    if (grouped) {
      all[own + "in_proj_qkvz.weight"] = {2 * (6 + 6 + 10 + 10), 12};
      all[own + "in_proj_ba.weight"] = {8, 12};
    } else {
      all[own + "in_proj_qkv.weight"] = {44, 12};
      all[own + "in_proj_z.weight"] = {20, 12};
      all[own + "in_proj_a.weight"] = all[own + "in_proj_b.weight"] = {4, 12};
    }
    all[own + "conv1d.weight"] = taps;
    all[own + "dt_bias"] = all[own + "A_log"] = {4};
    all[own + "norm.weight"] = {5};
    all[own + "out_proj.weight"] = {12, 20};
  }

  void add_attention(Shapes& all, const std::string& own) const {
    all[own + "q_proj.weight"] = {32, 12};
    all[own + "k_proj.weight"] = all[own + "v_proj.weight"] = {8, 12};
    all[own + "o_proj.weight"] = {12, 16};
    all[own + "q_norm.weight"] = all[own + "k_norm.weight"] = {8};
    if (!attention_bias) return;
    all[own + "q_proj.bias"] = {32};
    all[own + "k_proj.bias"] = all[own + "v_proj.bias"] = {8};
    all[own + "o_proj.bias"] = {12};
  }

  void add_dense(Shapes& all, const std::string& own, uint64_t width) const {
    all[own + "gate_proj.weight"] = all[own + "up_proj.weight"] = {width, 12};
    all[own + "down_proj.weight"] = {12, width};
  }

  void add_feed_forward(Shapes& all, const std::string& own) const {
    if (dense) return add_dense(all, own, 24);
    all[own + "gate.weight"] = {3, 12};
    add_dense(all, own + "shared_expert.", 7);
    all[own + "shared_expert_gate.weight"] = {1, 12};
    if (fused_experts) {
      all[own + "experts.gate_up_proj"] = {3, 18, 12};
      all[own + "experts.down_proj"] = {3, 12, 9};
      return;
    }
    for (const char* expert : {"0.", "1.", "2."}) add_dense(all, own + "experts." + expert, 9);
  }
};

constexpr std::string_view kText = R"("num_hidden_layers":2,"hidden_size":12,"num_attention_heads":2,
    "num_key_value_heads":1,"head_dim":8,"vocab_size":32,"intermediate_size":24,"full_attention_interval":2,
    "linear_num_key_heads":2,"linear_num_value_heads":4,"linear_key_head_dim":6,"linear_value_head_dim":5,
    "linear_conv_kernel_dim":3)";
constexpr std::string_view kExperts =
    R"("num_experts":3,"num_experts_per_tok":2,"moe_intermediate_size":9,"shared_expert_intermediate_size":7)";

class HybridPages : public MadeCheckpoint {
 protected:
  Result<DecoderSpec> read_next(const std::string& rest = "", const HybridShapes& shapes = {}) {
    return read_directory(fmt::format(R"({{"model_type":"qwen3_next",{},{}{}}})", kText, kExperts, rest),
                          shapes.shapes());
  }

  static const DeltaNetSpec& delta_of(const DecoderSpec& spec) {
    return std::get<DeltaNetSpec>(spec.layers[0].mixer);
  }
};

void expect_runs(const TensorRef& ref, const engine::Runs& runs) {
  EXPECT_EQ(ref.rows.first, runs.first) << ref.name;
  EXPECT_EQ(ref.rows.length, runs.length) << ref.name;
  EXPECT_EQ(ref.rows.count, runs.count) << ref.name;
  if (runs.count > 1) {
    EXPECT_EQ(ref.rows.stride, runs.stride) << ref.name;
  }
}

TEST_F(HybridPages, Qwen3NextGroupsItsProjectionsByKeyHead) {
  const auto spec = read_next();
  ASSERT_TRUE(spec) << spec.error().text();
  const DeltaNetSpec& delta = delta_of(*spec);
  expect_runs(delta.query, {.first = 0, .length = 6, .stride = 32, .count = 2});
  expect_runs(delta.key, {.first = 6, .length = 6, .stride = 32, .count = 2});
  expect_runs(delta.value, {.first = 12, .length = 10, .stride = 32, .count = 2});
  expect_runs(delta.gate, {.first = 22, .length = 10, .stride = 32, .count = 2});
  expect_runs(delta.rate_input, {.first = 0, .length = 2, .stride = 4, .count = 2});
  expect_runs(delta.decay_input, {.first = 2, .length = 2, .stride = 4, .count = 2});
  EXPECT_FALSE(delta.op.tiled);
  EXPECT_EQ(delta.decay_map, engine::VectorMap::negative_exponential);
  EXPECT_EQ(spec->norm_map, engine::VectorMap::plus_one);
}

TEST_F(HybridPages, QueriesAndGatesAlternateByHead) {
  HybridShapes shapes;
  shapes.attention_bias = true;
  const auto spec = read_next(R"(,"attention_bias":true)", shapes);
  ASSERT_TRUE(spec) << spec.error().text();
  const AttentionSpec& attention = attention_of(*spec, 1);
  expect_runs(attention.query, {.first = 0, .length = 8, .stride = 16, .count = 2});
  expect_runs(attention.gate, {.first = 8, .length = 8, .stride = 16, .count = 2});
  expect_runs(attention.query_bias, {.first = 0, .length = 8, .stride = 16, .count = 2});
  expect_runs(attention.gate_bias, {.first = 8, .length = 8, .stride = 16, .count = 2});
  EXPECT_EQ(attention.rope.dimensions, 2u) << "a quarter of the head";
}

TEST_F(HybridPages, MixturesHaveASharedExpertBehindAGate) {
  const auto spec = read_next(R"(,"norm_topk_prob":false)");
  ASSERT_TRUE(spec) << spec.error().text();
  const MixtureSpec& mixture = mixture_of(*spec, 1);
  EXPECT_EQ(mixture.router_op.used, 2u);
  EXPECT_FALSE(mixture.router_op.normalise);
  EXPECT_EQ(mixture.shared->width, 7u);
  EXPECT_EQ(mixture.shared_gate.name, "model.layers.1.mlp.shared_expert_gate.weight");
}

TEST_F(HybridPages, SomeLayersMayBeDense) {
  Shapes shapes = HybridShapes().shapes();
  std::erase_if(shapes, [](const auto& entry) { return entry.first.starts_with("model.layers.0.mlp."); });
  HybridShapes().add_dense(shapes, "model.layers.0.mlp.", 24);
  for (const char* rest : {R"("mlp_only_layers":[0])", R"("decoder_sparse_step":2)"}) {
    const auto spec = read_directory(
        fmt::format(R"({{"model_type":"qwen3_next",{},{},{}}})", kText, kExperts, rest), shapes);
    ASSERT_TRUE(spec) << rest << ": " << spec.error().text();
    EXPECT_EQ(dense_of(*spec, 0).width, 24u) << rest;
    EXPECT_EQ(mixture_of(*spec, 1).width, 9u) << rest;
  }
}

TEST_F(HybridPages, LayerTypesStandBeforeTheInterval) {
  const auto spec =
      read_next(R"(,"layer_types":["linear_attention","full_attention"],"full_attention_interval":1)");
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_TRUE(std::holds_alternative<DeltaNetSpec>(spec->layers[0].mixer));
  const auto other = read_next(R"(,"layer_types":["linear_attention","sliding_attention"])");
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("'layer_types' is "));
}

TEST_F(HybridPages, MlxHasTurnedTheTapsAndAddedTheOne) {
  HybridShapes shapes;
  shapes.taps = {44, 3, 1};
  const auto spec = read_next("", shapes);
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(spec->norm_map, engine::VectorMap::none);
  EXPECT_THAT(delta_of(*spec).taps.front().shape, ElementsAre(44, 3, 1));
}

TEST_F(HybridPages, Qwen35ReadsTheTextModelOfAMultimodalCheckpoint) {
  HybridShapes made;
  made.prefix = "model.language_model.";
  made.grouped = false;
  made.dense = true;
  made.tied = true;
  Shapes shapes = made.shapes();
  shapes["model.visual.patch_embed.proj.weight"] = {3, 3};
  shapes["mtp.fc.weight"] = {12, 24};
  const auto spec = read_directory(
      fmt::format(R"({{"model_type":"qwen3_5","architectures":["Qwen3_5ForConditionalGeneration"],
          "tie_word_embeddings":true,"vision_config":{{"depth":1}},
          "text_config":{{"model_type":"qwen3_5_text","attn_output_gate":true,"mlp_only_layers":[],
          "rope_parameters":{{"rope_type":"default","rope_theta":1000,"partial_rotary_factor":0.5,
          "mrope_interleaved":true,"mrope_section":[1,1,0]}},{}}}}})",
                  kText),
      shapes);
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_TRUE(spec->tied());
  EXPECT_EQ(spec->embedding.name, "model.language_model.embed_tokens.weight");
  EXPECT_EQ(attention_of(*spec, 1).rope.dimensions, 4u);
  const DeltaNetSpec& delta = delta_of(*spec);
  expect_runs(delta.query, {.first = 0, .length = 12, .stride = 0, .count = 1});
  expect_runs(delta.key, {.first = 12, .length = 12, .stride = 0, .count = 1});
  expect_runs(delta.value, {.first = 24, .length = 20, .stride = 0, .count = 1});
  EXPECT_EQ(delta.gate.name, "model.language_model.layers.0.linear_attn.in_proj_z.weight");
  EXPECT_EQ(delta.rate_input.name, "model.language_model.layers.0.linear_attn.in_proj_b.weight");
}

TEST_F(HybridPages, Qwen35HoldsItsExpertsFusedAndAlwaysRenormalises) {
  HybridShapes made;
  made.grouped = false;
  made.fused_experts = true;
  const auto spec = read_directory(
      fmt::format(R"({{"model_type":"qwen3_5_moe_text",{},{},"norm_topk_prob":false}})", kText, kExperts),
      made.shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  const MixtureSpec& mixture = mixture_of(*spec, 1);
  EXPECT_TRUE(mixture.router_op.normalise);
  EXPECT_EQ(mixture.up[2].rows.first, 9u);
  EXPECT_EQ(mixture.up[2].index, 2u);
}

TEST_F(HybridPages, RefuseWhatTheyCannotCompute) {
  const std::pair<const char*, const char*> changes[] = {
      {R"(,"linear_num_value_heads":3)", "'linear_num_value_heads' is 3"},
      {R"(,"attn_output_gate":false)", "'attn_output_gate' is false"},
      {R"(,"use_sliding_window":true)", "'use_sliding_window' is true"},
      {R"(,"hidden_act":"gelu_pytorch_tanh")", "'hidden_act' is \"gelu_pytorch_tanh\""},
      {R"(,"num_experts_per_tok":4)", "'num_experts_per_tok' is 4"},
      {R"(,"linear_conv_kernel_dim":4)", "conv1d.weight' has the shape [44, 1, 3]"}};
  for (const auto& [change, named] : changes) {
    const auto spec = read_next(change);
    ASSERT_FALSE(spec) << change;
    EXPECT_THAT(spec.error().message, HasSubstr(named)) << change;
  }
}

// Two blocks as above, and one that predicts further tokens; mixtures.
class HybridGguf : public MadeCheckpoint {
 protected:
  static GgufValues values(const std::string& type) {
    GgufValues all = {{"general.architecture", type}};
    const std::pair<const char*, uint32_t> numbers[] = {{"block_count", 3},
                                                        {"nextn_predict_layers", 1},
                                                        {"embedding_length", 12},
                                                        {"context_length", 64},
                                                        {"attention.head_count", 2},
                                                        {"attention.head_count_kv", 1},
                                                        {"attention.key_length", 8},
                                                        {"attention.value_length", 8},
                                                        {"rope.dimension_count", 2},
                                                        {"full_attention_interval", 2},
                                                        {"ssm.group_count", 2},
                                                        {"ssm.time_step_rank", 4},
                                                        {"ssm.state_size", 6},
                                                        {"ssm.inner_size", 20},
                                                        {"ssm.conv_kernel", 3},
                                                        {"expert_count", 3},
                                                        {"expert_used_count", 2},
                                                        {"expert_feed_forward_length", 9},
                                                        {"expert_shared_feed_forward_length", 7}};
    for (const auto& [key, number] : numbers) all[type + "." + key] = number;
    all[type + ".attention.layer_norm_rms_epsilon"] = 1e-6F;
    return all;
  }

  static Shapes shapes() {
    Shapes all = {{"token_embd.weight", {32, 12}},
                  {"output_norm.weight", {12}},
                  {"blk.2.nextn.eh_proj.weight", {12, 24}}};
    for (const std::string block : {"blk.0.", "blk.1."}) {
      all[block + "attn_norm.weight"] = all[block + "post_attention_norm.weight"] = {12};
      all[block + "ffn_gate_inp.weight"] = {3, 12};
      all[block + "ffn_gate_exps.weight"] = all[block + "ffn_up_exps.weight"] = {3, 9, 12};
      all[block + "ffn_down_exps.weight"] = {3, 12, 9};
      all[block + "ffn_gate_inp_shexp.weight"] = {12};
      all[block + "ffn_gate_shexp.weight"] = all[block + "ffn_up_shexp.weight"] = {7, 12};
      all[block + "ffn_down_shexp.weight"] = {12, 7};
    }
    all["blk.0.ssm_conv1d.weight"] = {44, 3};
    all["blk.0.ssm_dt.bias"] = all["blk.0.ssm_a"] = {4};
    all["blk.0.ssm_norm.weight"] = {5};
    all["blk.0.ssm_out.weight"] = {12, 20};
    all["blk.1.attn_q.weight"] = {32, 12};
    all["blk.1.attn_k.weight"] = all["blk.1.attn_v.weight"] = {8, 12};
    all["blk.1.attn_output.weight"] = {12, 16};
    all["blk.1.attn_q_norm.weight"] = all["blk.1.attn_k_norm.weight"] = {8};
    return all;
  }
};

TEST_F(HybridGguf, Qwen35TilesItsValueHeads) {
  Shapes all = shapes();
  all["blk.0.attn_qkv.weight"] = {44, 12};
  all["blk.0.attn_gate.weight"] = {20, 12};
  all["blk.0.ssm_alpha.weight"] = all["blk.0.ssm_beta.weight"] = {4, 12};
  const auto spec = read_gguf(values("qwen35moe"), all);
  ASSERT_TRUE(spec) << spec.error().text();
  ASSERT_EQ(spec->layer_count(), 2u);
  const auto& delta = std::get<DeltaNetSpec>(spec->layers[0].mixer);
  EXPECT_TRUE(delta.op.tiled);
  EXPECT_EQ(delta.op.value_dim, 5u);
  EXPECT_EQ(delta.decay_map, engine::VectorMap::none);
  EXPECT_EQ(delta.decay_input.name, "blk.0.ssm_alpha.weight");
  EXPECT_EQ(spec->norm_map, engine::VectorMap::none);
  EXPECT_TRUE(mixture_of(*spec, 1).router_op.normalise);
  EXPECT_THAT(mixture_of(*spec, 1).shared_gate.shape, ElementsAre(12));
}

TEST_F(HybridGguf, Qwen3NextKeepsItsHeadsGroupedInOldFilesAndNew) {
  for (const bool old : {false, true}) {
    Shapes all = shapes();
    all["blk.0.ssm_ba.weight"] = {8, 12};
    if (old) {
      all["blk.0.ssm_in.weight"] = {64, 12};
    } else {
      all["blk.0.attn_qkv.weight"] = {44, 12};
      all["blk.0.attn_gate.weight"] = {20, 12};
    }
    const auto spec = read_gguf(values("qwen3next"), all);
    ASSERT_TRUE(spec) << old << ": " << spec.error().text();
    const auto& delta = std::get<DeltaNetSpec>(spec->layers[0].mixer);
    EXPECT_FALSE(delta.op.tiled);
    EXPECT_EQ(delta.query.rows.count, old ? 2u : 1u);
    EXPECT_EQ(delta.rate_input.rows.count, 2u);
  }
}

}  // namespace
}  // namespace shoal::model
