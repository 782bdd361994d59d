// What the pages of Gemma 2, Gemma 3 and Phi-3 read, and what their absent fields mean.
#include <cmath>
#include <gmock/gmock.h>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Pages = MadeCheckpoint;
using engine::VectorMap;

// Two query heads and one kv head of 8 values, which are not hidden size / heads.
std::string gemma(const std::string& type, const std::string& more, int layers) {
  return fmt::format(R"({{"model_type":"{}","hidden_size":36,"intermediate_size":24,"num_hidden_layers":{},
      "num_attention_heads":2,"num_key_value_heads":1,"head_dim":8,"vocab_size":32{}{}}})",
                     type, layers, more.empty() ? "" : ",", more);
}

PlainShapes gemma_shapes(uint64_t layers, bool head_norms) {
  return {.layers = layers, .hidden = 36, .tied = true, .head_norms = head_norms, .gemma_norms = true};
}

TEST_F(Pages, Gemma2CapsAlternatesAndTiesByDefault) {
  const auto spec = read_directory(gemma("gemma2", "", 3), gemma_shapes(3, false).shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_TRUE(spec->tied());
  EXPECT_EQ(spec->norm_map, VectorMap::plus_one);
  EXPECT_FLOAT_EQ(spec->embedding_scale, 6);
  EXPECT_FLOAT_EQ(spec->final_softcap, 30);
  EXPECT_THAT(windows_of(*spec), ElementsAre(4096, 0, 4096));
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).softcap, 50);
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).scale, 1.0f / 16);
  EXPECT_EQ(dense_of(*spec, 0).activation.kind, engine::Activation::Kind::gelu_tanh);
  const LayerSpec& layer = spec->layers[1];
  EXPECT_EQ(layer.mixer_norm.name, "model.layers.1.input_layernorm.weight");
  EXPECT_EQ(layer.mixer_post_norm.name, "model.layers.1.post_attention_layernorm.weight");
  EXPECT_EQ(layer.feed_forward_norm.name, "model.layers.1.pre_feedforward_layernorm.weight");
  EXPECT_EQ(layer.feed_forward_post_norm.name, "model.layers.1.post_feedforward_layernorm.weight");
}

TEST_F(Pages, Gemma2TakesWhatItsConfigurationSays) {
  const auto spec = read_directory(
      gemma("gemma2", R"("attn_logit_softcapping":null,"final_logit_softcapping":12.0,"sliding_window":24,
          "query_pre_attn_scalar":4,"layer_types":["full_attention","sliding_attention"],"hidden_act":"silu")",
            2),
      gemma_shapes(2, false).shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).softcap, 0);
  EXPECT_FLOAT_EQ(spec->final_softcap, 12);
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).scale, 0.5f);
  EXPECT_THAT(windows_of(*spec), ElementsAre(0, 24));
  EXPECT_EQ(dense_of(*spec, 0).activation.kind, engine::Activation::Kind::gelu_tanh)
      << "hidden_activation counts, hidden_act does not";
}

TEST_F(Pages, Gemma3RotatesWindowedLayersByTheirOwnBaseWithoutScaling) {
  const std::string old_style = R"("rope_theta":1e6,"rope_local_base_freq":100,
      "rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":20)";
  const std::string new_style = R"("rope_parameters":{
      "full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1e6},
      "sliding_attention":{"rope_type":"default","rope_theta":100}},"sliding_window":20)";
  for (const std::string& style : {old_style, new_style}) {
    const auto spec = read_directory(gemma("gemma3_text", style, 7), gemma_shapes(7, true).shapes());
    ASSERT_TRUE(spec) << style << ": " << spec.error().text();
    EXPECT_THAT(windows_of(*spec), ElementsAre(20, 20, 20, 20, 20, 0, 20));
    EXPECT_FLOAT_EQ(attention_of(*spec, 0).rope.inverse_frequencies[2], 0.1f) << style;
    EXPECT_FLOAT_EQ(attention_of(*spec, 5).rope.inverse_frequencies[2], 0.001f / 8) << style;
    EXPECT_FLOAT_EQ(spec->final_softcap, 0);
    EXPECT_EQ(attention_of(*spec, 0).key_norm.name, "model.layers.0.self_attn.k_norm.weight");
  }
}

TEST_F(Pages, Gemma3HasBasesOfItsOwnWhereNoneIsStatedAndAPatternIfStated) {
  const auto spec = read_directory(gemma("gemma3_text", R"("sliding_window_pattern":2)", 2),
                                   gemma_shapes(2, true).shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_THAT(windows_of(*spec), ElementsAre(4096, 0));
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).rope.inverse_frequencies[2], 0.01f);
  EXPECT_FLOAT_EQ(attention_of(*spec, 1).rope.inverse_frequencies[2], 0.001f);
  EXPECT_EQ(spec->context_tokens, 131072u);
}

TEST_F(Pages, Gemma3RefusesOneSetOfRotaryParametersForAllLayers) {
  const auto spec =
      read_directory(gemma("gemma3_text", R"("rope_parameters":{"rope_type":"default","rope_theta":1e6})", 2),
                     gemma_shapes(2, true).shapes());
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::unsupported);
  EXPECT_THAT(spec.error().message, HasSubstr("'rope_parameters' is"));
}

TEST_F(Pages, Gemma3InsideAMultimodalCheckpointMayLeaveNearlyAllToDefaults) {
  for (const std::string prefix : {"language_model.model.", "model.language_model.", "model."}) {
    PlainShapes plain{.layers = 1,
                      .hidden = 40,
                      .queries = 8 * 256,
                      .keys = 4 * 256,
                      .tied = true,
                      .head_norms = true,
                      .gemma_norms = true,
                      .head_dim = 256,
                      .prefix = prefix};
    Shapes shapes = plain.shapes();
    shapes["vision_tower.vision_model.embeddings.patch_embedding.weight"] = {4, 4};
    shapes["multi_modal_projector.mm_input_projection_weight"] = {4, 4};
    const auto spec = read_directory(
        R"({"model_type":"gemma3","architectures":["Gemma3ForConditionalGeneration"],"vision_config":{"a":1},
            "text_config":{"model_type":"gemma3_text","hidden_size":40,"intermediate_size":24,
            "num_hidden_layers":1,"id2label":{"0":"A"},"pruned_heads":{},"rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024}})",
        shapes);
    ASSERT_TRUE(spec) << prefix << ": " << spec.error().text();
    EXPECT_TRUE(spec->tied());
    EXPECT_EQ(spec->embedding.name, prefix + "embed_tokens.weight");
    EXPECT_EQ(attention_of(*spec, 0).query_heads, 8u);
    EXPECT_EQ(spec->vocabulary_size, 32u);
  }
}

Shapes phi3_shapes(uint64_t queries, uint64_t keys, uint64_t hidden) {
  Shapes shapes = {{"model.embed_tokens.weight", {32, hidden}}, {"model.norm.weight", {hidden}}};
  for (int i = 0; i < 2; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    shapes[layer + "input_layernorm.weight"] = shapes[layer + "post_attention_layernorm.weight"] = {hidden};
    shapes[layer + "self_attn.qkv_proj.weight"] = {queries + 2 * keys, hidden};
    shapes[layer + "self_attn.o_proj.weight"] = {hidden, queries};
    shapes[layer + "mlp.gate_up_proj.weight"] = {40, hidden};
    shapes[layer + "mlp.down_proj.weight"] = {hidden, 20};
  }
  return shapes;
}

std::string phi3(const std::string& more) {
  return R"({"model_type":"phi3","hidden_size":32,"intermediate_size":20,"num_hidden_layers":2,
      "num_attention_heads":2,"num_key_value_heads":1,"vocab_size":32,"tie_word_embeddings":true)" +
         more + "}";
}

TEST_F(Pages, Phi3TakesItsMatricesOutOfFusedOnes) {
  const auto spec = read_directory(phi3(R"(,"sliding_window":2047)"), phi3_shapes(32, 16, 32));
  ASSERT_TRUE(spec) << spec.error().text();
  const AttentionSpec& attention = attention_of(*spec, 1);
  EXPECT_EQ(attention.value.name, "model.layers.1.self_attn.qkv_proj.weight");
  EXPECT_EQ(attention.query.rows.first, 0u);
  EXPECT_EQ(attention.query.rows.size(64), 32u);
  EXPECT_EQ(attention.key.rows.first, 32u);
  EXPECT_EQ(attention.key.rows.size(64), 16u);
  EXPECT_EQ(attention.value.rows.first, 48u);
  EXPECT_EQ(dense_of(*spec, 1).up.rows.first, 20u);
  EXPECT_THAT(windows_of(*spec), Each(2047u));
  EXPECT_EQ(attention.rope.dimensions, 16u);
  EXPECT_FLOAT_EQ(spec->norm_epsilon, 1e-5f);
}

TEST_F(Pages, Phi3RotatesAPartByLongFactorsAfterItsOriginalContext) {
  for (const char* kind : {"longrope", "su", "yarn"}) {
    const auto spec =
        read_directory(phi3(fmt::format(R"(,"partial_rotary_factor":0.5,"max_position_embeddings":8192,
            "original_max_position_embeddings":512,"rope_scaling":{{"type":"{}",
            "short_factor":[1,1,2,2],"long_factor":[4,4,4,8]}})",
                                        kind)),
                       phi3_shapes(32, 16, 32));
    ASSERT_TRUE(spec) << kind << ": " << spec.error().text();
    const RopeSpec& rope = attention_of(*spec, 0).rope;
    EXPECT_EQ(rope.dimensions, 8u);
    EXPECT_EQ(rope.long_after_tokens, 512u);
    EXPECT_FLOAT_EQ(rope.magnitude, std::sqrt(1 + std::log(16.0f) / std::log(512.0f)));
    ASSERT_EQ(rope.inverse_frequencies.size(), 4u);
    ASSERT_EQ(rope.long_inverse_frequencies.size(), 4u);
    EXPECT_FLOAT_EQ(rope.inverse_frequencies[2], 0.005f);
    EXPECT_FLOAT_EQ(rope.long_inverse_frequencies[2], 0.0025f);
  }
}

TEST_F(Pages, Phi3RefusesFactorsOfAnotherNumberAndScalingsThatItDoesNotKnow) {
  const auto few =
      read_directory(phi3(R"(,"rope_scaling":{"type":"longrope","short_factor":[1],"long_factor":[1]})"),
                     phi3_shapes(32, 16, 32));
  ASSERT_FALSE(few);
  EXPECT_THAT(few.error().message, HasSubstr("must be a list of 8 numbers"));
  const auto short_context =
      read_directory(phi3(R"(,"original_max_position_embeddings":1,"rope_scaling":{"type":"longrope"})"),
                     phi3_shapes(32, 16, 32));
  ASSERT_FALSE(short_context);
  EXPECT_THAT(short_context.error().message,
              HasSubstr("'original_max_position_embeddings' is 1, but must be from 2"));
  const auto unknown =
      read_directory(phi3(R"(,"rope_scaling":{"type":"dynamic","factor":2.0})"), phi3_shapes(32, 16, 32));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace shoal::model
