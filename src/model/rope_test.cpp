// Frequencies of every scaling, against numbers that `transformers`' formulas give, and how configurations of
// both formats ask for them.
#include "model/rope.h"

#include <cmath>
#include <gmock/gmock.h>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using ::testing::HasSubstr;

void expect_frequencies(const std::vector<float>& got, const std::vector<double>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(got[i] / expected[i], 1, 1e-6) << i;
}

TEST(RopeFrequencies, YarnBlendsByIndex) {
  RopeScaling scaling{.kind = RopeScaling::Kind::yarn, .factor = 32, .original_context = 4096};
  expect_frequencies(inverse_frequencies(16, 150000, scaling, {}).value(),
                     {1.0, 0.225418, 0.0508132748, 0.00775546606, 0.000914454401, 1.81883367e-05,
                      4.09997848e-06, 9.2420895e-07});
  scaling.whole_indices = false;
  expect_frequencies(inverse_frequencies(16, 150000, scaling, {}).value(),
                     {1.0, 0.225418, 0.0508132748, 0.00679495949, 0.000456483919, 1.81883367e-05,
                      4.09997848e-06, 9.2420895e-07});
}

TEST(RopeFrequencies, YarnKeepsToTheEndsOfTheHead) {
  expect_frequencies(
      inverse_frequencies(16, 10000, {.kind = RopeScaling::Kind::yarn, .factor = 40, .original_context = 64},
                          {})
          .value(),
      {1.0, 0.213453742, 0.035, 0.000790569415, 0.00025, 7.90569415e-05, 2.5e-05, 7.90569415e-06});
}

TEST(RopeFrequencies, AnOddNumberOfRotatedValuesHasALastPair) {
  const auto frequencies = inverse_frequencies(5, 10000, {}, {}).value();
  ASSERT_EQ(frequencies.size(), 3u);
  EXPECT_FLOAT_EQ(frequencies[2], std::pow(10000.0f, -0.8f));
}

using RopeConfig = MadeCheckpoint;

constexpr const char* kLlama = R"({"model_type":"llama","hidden_size":32,"intermediate_size":24,
    "num_hidden_layers":1,"num_attention_heads":2,"vocab_size":32,"max_position_embeddings":4096)";

Shapes llama_shapes() {
  return PlainShapes{.layers = 1, .hidden = 32, .queries = 32, .keys = 32, .head_dim = 16}.shapes();
}

TEST_F(RopeConfig, YarnMultipliesByTheStatedFactorOrByOneMadeOfItsWeights) {
  const double plain = 0.1 * std::log(32) + 1;
  const std::pair<const char*, double> cases[] = {
      {R"("factor":32)", plain},
      {R"("factor":32,"attention_factor":1.5)", 1.5},
      {R"("factor":32,"attention_factor":null)", plain},
      {R"("factor":32,"mscale":1.0)", plain},
      {R"("factor":32,"mscale":1.0,"mscale_all_dim":0)", plain},
      {R"("factor":32,"mscale":1.0,"mscale_all_dim":1.0)", 1},
      {R"("factor":32,"mscale":2.0,"mscale_all_dim":0.5)",
       (0.2 * std::log(32) + 1) / (0.05 * std::log(32) + 1)},
      {R"("factor":0.5)", 1},
      {R"("original_max_position_embeddings":128)", plain}};  // the factor is 4096 / 128
  for (const auto& [fields, magnitude] : cases) {
    for (const char* style : {"rope_scaling", "rope_parameters"}) {
      const auto spec = read_directory(
          fmt::format(R"({},"{}":{{"rope_type":"yarn",{}}}}})", kLlama, style, fields), llama_shapes());
      ASSERT_TRUE(spec) << fields << ": " << spec.error().text();
      EXPECT_NEAR(attention_of(*spec, 0).rope.magnitude, magnitude, 1e-6) << fields;
    }
  }
}

TEST_F(RopeConfig, TheOriginalContextOutsideStandsBeforeTheOneInside) {
  const auto frequencies = [&](const std::string& outer, const std::string& inner) {
    const auto spec = read_directory(
        fmt::format(R"({}{},"rope_scaling":{{"type":"yarn","factor":32{}}}}})", kLlama, outer, inner),
        llama_shapes());
    EXPECT_TRUE(spec) << outer << inner;
    return spec ? attention_of(*spec, 0).rope.inverse_frequencies : std::vector<float>();
  };
  const std::string small = R"(,"original_max_position_embeddings":256)";
  const std::string large = R"(,"original_max_position_embeddings":4096)";
  EXPECT_EQ(frequencies(small, ""), frequencies("", small));
  EXPECT_EQ(frequencies(small, large), frequencies("", small));
  EXPECT_EQ(frequencies("", ""), frequencies("", large)) << "max_position_embeddings";
  EXPECT_NE(frequencies("", small), frequencies("", large));
}

TEST_F(RopeConfig, TextHasNoUseForTheSectionsOfMrope) {
  const auto spec =
      read_directory(fmt::format(R"({},"rope_scaling":{{"type":"mrope","mrope_section":[2,3,3]}}}})", kLlama),
                     llama_shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).rope.inverse_frequencies[4], 0.01f);
}

TEST_F(RopeConfig, RefusesWhatItDoesNotKnow) {
  for (const char* scaling : {R"({"type":"dynamic","factor":2.0})", R"({"rope_type":"proportional"})",
                              R"({"rope_type":"longcat","factor":2.0})"}) {
    const auto spec =
        read_directory(fmt::format(R"({},"rope_scaling":{}}})", kLlama, scaling), llama_shapes());
    ASSERT_FALSE(spec) << scaling;
    EXPECT_EQ(spec.error().code, ErrorCode::unsupported) << scaling;
    EXPECT_THAT(spec.error().message, HasSubstr("'rope_scaling."));
  }
  for (const char* scaling :
       {R"({"type":"yarn","factor":-1})", R"({"type":"yarn","factor":2,"beta_fast":"x"})",
        R"({"type":"yarn","factor":2,"truncate":1})",
        R"({"type":"longrope","short_factor":[1,2],"long_factor":[1,2]})",
        R"({"type":"longrope","short_factor":[0,0,0,0,0,0,0,0],"long_factor":[1,1,1,1,1,1,1,1]})"}) {
    const auto spec =
        read_directory(fmt::format(R"({},"rope_scaling":{}}})", kLlama, scaling), llama_shapes());
    ASSERT_FALSE(spec) << scaling;
    EXPECT_EQ(spec.error().code, ErrorCode::malformed) << scaling;
  }
}

using GgufRope = MadeCheckpoint;

GgufValues llama_gguf(const GgufValues& more, const std::string& architecture = "llama") {
  GgufValues values = {{"general.architecture", architecture}};
  const GgufValues keys = {{"block_count", 1u},
                           {"context_length", 4096u},
                           {"embedding_length", 32u},
                           {"feed_forward_length", 24u},
                           {"attention.head_count", 2u},
                           {"attention.head_count_kv", 2u},
                           {"attention.layer_norm_rms_epsilon", 1e-5f},
                           {"vocab_size", 32u},
                           {"rope.dimension_count", 16u}};
  for (const auto& [key, value] : keys) values[architecture + "." + key] = value;
  for (const auto& [key, value] : more) values[architecture + "." + key] = value;
  return values;
}

Shapes llama_gguf_shapes() {
  return {{"token_embd.weight", {32, 32}},     {"output_norm.weight", {32}},
          {"blk.0.attn_norm.weight", {32}},    {"blk.0.ffn_norm.weight", {32}},
          {"blk.0.attn_q.weight", {32, 32}},   {"blk.0.attn_k.weight", {32, 32}},
          {"blk.0.attn_v.weight", {32, 32}},   {"blk.0.attn_output.weight", {32, 32}},
          {"blk.0.ffn_gate.weight", {24, 32}}, {"blk.0.ffn_up.weight", {24, 32}},
          {"blk.0.ffn_down.weight", {32, 24}}};
}

TEST_F(GgufRope, YarnIsThatOfTheConfigurationItWasMadeFrom) {
  const GgufValues yarn = {{"rope.scaling.type", std::string("yarn")},
                           {"rope.scaling.factor", 32.0f},
                           {"rope.scaling.original_context_length", 512u},
                           {"rope.freq_base", 10000.0f}};
  const std::string inside = R"("type":"yarn","factor":32,"original_max_position_embeddings":512)";
  const std::tuple<GgufValues, std::string, std::string> cases[] = {
      {{}, "", "llama"},
      {{{"rope.scaling.yarn_beta_fast", 8.0f}, {"rope.scaling.yarn_beta_slow", 2.0f}},
       R"(,"beta_fast":8,"beta_slow":2)",
       "llama"},
      {{{"rope.scaling.yarn_attn_factor", 1.25f}}, R"(,"attention_factor":1.25)", "llama"},
      {{{"rope.scaling.yarn_log_multiplier", 1.0f}}, R"(,"mscale":1,"mscale_all_dim":1)", "mistral3"},
      {{{"rope.scaling.yarn_log_multiplier", 0.0f}}, "", "mistral3"}};
  for (const auto& [more, fields, architecture] : cases) {
    GgufValues values = yarn;
    for (const auto& [key, value] : more) values[key] = value;
    const auto gguf = read_gguf(llama_gguf(values, architecture), llama_gguf_shapes());
    ASSERT_TRUE(gguf) << fields << ": " << gguf.error().text();
    const auto json = read_directory(fmt::format(R"({},"rope_scaling":{{{}{}}}}})", kLlama, inside, fields),
                                     llama_shapes());
    ASSERT_TRUE(json) << fields << ": " << json.error().text();
    EXPECT_FLOAT_EQ(attention_of(*gguf, 0).rope.magnitude, attention_of(*json, 0).rope.magnitude) << fields;
    EXPECT_EQ(attention_of(*gguf, 0).rope.inverse_frequencies,
              attention_of(*json, 0).rope.inverse_frequencies)
        << fields;
  }
}

TEST_F(GgufRope, LongFactorsAreTensors) {
  const std::vector<float> shorter(8, 1.0f), longer(8, 4.0f);
  const GgufValues values = llama_gguf({{"rope.scaling.original_context_length", 512u},
                                        {"rope.scaling.attn_factor", 1.25f},
                                        {"rope.scaling.type", std::string("longrope")}});
  const auto spec = read_gguf(values, llama_gguf_shapes(),
                              {{"rope_factors_short.weight", shorter}, {"rope_factors_long.weight", longer}});
  ASSERT_TRUE(spec) << spec.error().text();
  const RopeSpec& rope = attention_of(*spec, 0).rope;
  EXPECT_FLOAT_EQ(rope.magnitude, 1.25f);
  EXPECT_EQ(rope.long_after_tokens, 512u);
  EXPECT_FLOAT_EQ(rope.inverse_frequencies[4], 0.01f);
  ASSERT_EQ(rope.long_inverse_frequencies.size(), 8u);
  EXPECT_FLOAT_EQ(rope.long_inverse_frequencies[4], 0.0025f);
  const auto half = read_gguf(values, llama_gguf_shapes(), {{"rope_factors_short.weight", shorter}});
  ASSERT_FALSE(half);
  EXPECT_THAT(half.error().message, HasSubstr("rope_factors_long"));
}

TEST_F(GgufRope, RefusesScalingsAndExtrapolationThatItDoesNotKnow) {
  for (const GgufValues& more :
       {GgufValues{{"rope.scaling.type", std::string("ntk")}},
        GgufValues{{"rope.scaling.type", std::string("yarn")}, {"rope.scaling.yarn_ext_factor", 0.5f}}}) {
    const auto spec = read_gguf(llama_gguf(more), llama_gguf_shapes());
    ASSERT_FALSE(spec);
    EXPECT_EQ(spec.error().code, ErrorCode::unsupported);
    EXPECT_THAT(spec.error().message, HasSubstr("'llama.rope.scaling."));
  }
}

}  // namespace
}  // namespace shoal::model
