// What the pages read from GGUF metadata, with the keys that llama.cpp's converter writes for each family.
#include <cmath>
#include <gmock/gmock.h>

#include "model/made_checkpoint.h"

namespace shoal::model {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using GgufPages = MadeCheckpoint;

// Two query heads and one kv head of 8 values.
GgufValues keys(const std::string& architecture, uint32_t layers, const GgufValues& more) {
  const GgufValues common = {{"block_count", layers},
                             {"context_length", 4096u},
                             {"embedding_length", 36u},
                             {"feed_forward_length", 24u},
                             {"attention.head_count", 2u},
                             {"attention.head_count_kv", 1u},
                             {"attention.key_length", 8u},
                             {"attention.value_length", 8u},
                             {"attention.layer_norm_rms_epsilon", 1e-5f},
                             {"rope.freq_base", 10000.0f}};
  GgufValues all = {{"general.architecture", architecture}};
  for (const GgufValues* some : {&common, &more})
    for (const auto& [key, value] : *some) all[architecture + "." + key] = value;
  return all;
}

struct GgufShapes {
  uint64_t layers = 2;
  bool post_norms = false, head_norms = false, biases = false, dense = true, fused = false;

  Shapes shapes() const {
    Shapes all = {{"token_embd.weight", {32, 36}}, {"output_norm.weight", {36}}};
    for (uint64_t i = 0; i < layers; ++i) add_layer(all, fmt::format("blk.{}.", i));
    return all;
  }

 private:
  void add_layer(Shapes& all, const std::string& layer) const {
    all[layer + "attn_norm.weight"] = all[layer + "ffn_norm.weight"] = {36};
    if (post_norms) all[layer + "post_attention_norm.weight"] = all[layer + "post_ffw_norm.weight"] = {36};
    if (head_norms) all[layer + "attn_q_norm.weight"] = all[layer + "attn_k_norm.weight"] = {8};
    all[layer + "attn_output.weight"] = {36, 16};
    if (fused) {
      all[layer + "attn_qkv.weight"] = {32, 36};
      all[layer + "ffn_up.weight"] = {48, 36};
      all[layer + "ffn_down.weight"] = {36, 24};
      return;
    }
    all[layer + "attn_q.weight"] = {16, 36};
    all[layer + "attn_k.weight"] = all[layer + "attn_v.weight"] = {8, 36};
    if (biases) {
      all[layer + "attn_q.bias"] = {16};
      all[layer + "attn_k.bias"] = all[layer + "attn_v.bias"] = {8};
    }
    if (!dense) return;
    all[layer + "ffn_gate.weight"] = all[layer + "ffn_up.weight"] = {24, 36};
    all[layer + "ffn_down.weight"] = {36, 24};
  }
};

TEST_F(GgufPages, MixtralIsALlamaWithExpertsStackedOrOneByOne) {
  for (const bool stacked : {true, false}) {
    Shapes shapes = GgufShapes{.dense = false}.shapes();
    for (int layer = 0; layer < 2; ++layer) {
      const std::string prefix = fmt::format("blk.{}.", layer);
      shapes[prefix + "ffn_gate_inp.weight"] = {3, 36};
      if (stacked) {
        shapes[prefix + "ffn_gate_exps.weight"] = shapes[prefix + "ffn_up_exps.weight"] = {3, 24, 36};
        shapes[prefix + "ffn_down_exps.weight"] = {3, 36, 24};
      }
      for (int expert = 0; expert < 3 && !stacked; ++expert) {
        shapes[fmt::format("{}ffn_gate.{}.weight", prefix, expert)] = {24, 36};
        shapes[fmt::format("{}ffn_up.{}.weight", prefix, expert)] = {24, 36};
        shapes[fmt::format("{}ffn_down.{}.weight", prefix, expert)] = {36, 24};
      }
    }
    const auto spec = read_gguf(keys("llama", 2, {{"expert_count", 3u}, {"expert_used_count", 2u}}), shapes);
    ASSERT_TRUE(spec) << spec.error().text();
    const MixtureSpec& mixture = mixture_of(*spec, 1);
    EXPECT_EQ(mixture.router_op.used, 2u);
    EXPECT_TRUE(mixture.router_op.normalise);
    ASSERT_EQ(mixture.down.size(), 3u);
    EXPECT_EQ(mixture.down[2].name, stacked ? "blk.1.ffn_down_exps.weight" : "blk.1.ffn_down.2.weight");
    EXPECT_EQ(attention_of(*spec, 0).rope.pairs, engine::RopePairs::interleaved);
  }
}

TEST_F(GgufPages, Qwen3MoeNormalisesAndHasStacksOfEitherKind) {
  for (const bool fused : {false, true}) {
    Shapes shapes = GgufShapes{.layers = 1, .head_norms = true, .dense = false}.shapes();
    shapes["blk.0.ffn_gate_inp.weight"] = {5, 36};
    shapes["blk.0.ffn_down_exps.weight"] = {5, 36, 6};
    if (fused) {
      shapes["blk.0.ffn_gate_up_exps.weight"] = {5, 12, 36};
    } else {
      shapes["blk.0.ffn_gate_exps.weight"] = shapes["blk.0.ffn_up_exps.weight"] = {5, 6, 36};
    }
    const auto spec =
        read_gguf(keys("qwen3moe", 1,
                       {{"expert_count", 5u}, {"expert_used_count", 2u}, {"expert_feed_forward_length", 6u}}),
                  shapes);
    ASSERT_TRUE(spec) << spec.error().text();
    const MixtureSpec& mixture = mixture_of(*spec, 0);
    EXPECT_TRUE(mixture.router_op.normalise);
    EXPECT_EQ(mixture.width, 6u);
    EXPECT_EQ(mixture.up[4].index, 4u);
    EXPECT_EQ(mixture.up[4].rows.first, fused ? 6u : 0u);
  }
}

TEST_F(GgufPages, Qwen2HasTheBiasesThatAreThere) {
  const auto spec = read_gguf(keys("qwen2", 2, {}), GgufShapes{.biases = true}.shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(attention_of(*spec, 1).key_bias.name, "blk.1.attn_k.bias");
  EXPECT_EQ(attention_of(*spec, 1).rope.pairs, engine::RopePairs::halves);
}

TEST_F(GgufPages, Gemma2AlternatesAndIsScaledByItsHeadSize) {
  const auto spec = read_gguf(keys("gemma2", 3,
                                   {{"attention.sliding_window", 24u},
                                    {"attn_logit_softcapping", 6.0f},
                                    {"final_logit_softcapping", 12.0f}}),
                              GgufShapes{.layers = 3, .post_norms = true}.shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_THAT(windows_of(*spec), ElementsAre(24, 0, 24));
  EXPECT_EQ(spec->norm_map, engine::VectorMap::none) << "the converter has added the 1";
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).softcap, 6);
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).scale, 1 / std::sqrt(8.0f));
  EXPECT_FLOAT_EQ(spec->final_softcap, 12);
  EXPECT_FLOAT_EQ(spec->embedding_scale, 6);
  EXPECT_EQ(spec->layers[2].feed_forward_post_norm.name, "blk.2.post_ffw_norm.weight");
}

TEST_F(GgufPages, Gemma3sLargestModelIsScaledByHiddenSizeOverHeads) {
  const auto spec = read_gguf(keys("gemma3", 62,
                                   {{"attention.sliding_window", 20u},
                                    {"rope.scaling.type", std::string("linear")},
                                    {"rope.scaling.factor", 8.0f}}),
                              GgufShapes{.layers = 62, .post_norms = true, .head_norms = true}.shapes());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_FLOAT_EQ(attention_of(*spec, 0).scale, 1 / std::sqrt(18.0f));
  EXPECT_EQ(attention_of(*spec, 4).window, 20u);
  EXPECT_EQ(attention_of(*spec, 5).window, 0u);
  EXPECT_FLOAT_EQ(attention_of(*spec, 4).rope.inverse_frequencies[2], 0.01f);
  EXPECT_FLOAT_EQ(attention_of(*spec, 5).rope.inverse_frequencies[2], 0.01f / 8);
}

TEST_F(GgufPages, Gemma3OfOllamaHasNamesOfItsOwnAndWhatSeesInTheSameFile) {
  GgufValues values = keys("gemma3", 6,
                           {{"attention.sliding_window", 20u},
                            {"context_length", 131072u},
                            {"rope.local.freq_base", 10000.0f},
                            {"rope.global.freq_base", 1e6f},
                            {"mm.tokens_per_image", 256u},
                            {"vision.block_count", 27u}});
  for (const char* absent : {"rope.freq_base", "attention.layer_norm_rms_epsilon"})
    values.erase(std::string("gemma3.") + absent);
  Shapes shapes = GgufShapes{.layers = 6, .post_norms = true, .head_norms = true}.shapes();
  shapes["v.blk.0.attn_q.weight"] = shapes["mm.input_projection.weight"] = {4, 4};
  const auto spec = read_gguf(values, shapes);
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_FLOAT_EQ(spec->norm_epsilon, 1e-6f);
  EXPECT_EQ(attention_of(*spec, 4).window, 20u);
  EXPECT_FLOAT_EQ(attention_of(*spec, 4).rope.inverse_frequencies[2], 0.01f);
  EXPECT_FLOAT_EQ(attention_of(*spec, 5).rope.inverse_frequencies[2], 0.001f / 8);
}

TEST_F(GgufPages, Phi3IsFusedAndItsWindowMayBeZero) {
  for (const uint32_t window : {0u, 2047u}) {
    const auto spec = read_gguf(keys("phi3", 2,
                                     {{"attention.sliding_window", window},
                                      {"rope.dimension_count", 6u},
                                      {"rope.scaling.original_context_length", 4096u}}),
                                GgufShapes{.fused = true}.shapes());
    ASSERT_TRUE(spec) << spec.error().text();
    EXPECT_THAT(windows_of(*spec), Each(window));
    EXPECT_EQ(attention_of(*spec, 0).key.rows.first, 16u);
    EXPECT_EQ(attention_of(*spec, 0).value.rows.first, 24u);
    EXPECT_EQ(dense_of(*spec, 0).up.rows.first, 24u);
    EXPECT_EQ(attention_of(*spec, 0).rope.dimensions, 6u);
  }
}

TEST_F(GgufPages, MessagesOfGptOssEndWithoutEndingTheAnswer) {
  const auto ends = [&](std::vector<std::string> tokens) {
    GgufValues metadata = keys("llama", 2, {});
    metadata["tokenizer.ggml.token_type"] = std::vector<uint32_t>(tokens.size(), 3);
    metadata["tokenizer.ggml.tokens"] = std::move(tokens);
    EXPECT_TRUE(read_gguf(metadata, GgufShapes().shapes()));
    return end_of_sequence_ids(formats::Checkpoint::open(directory_ / "model.gguf").value());
  };
  EXPECT_THAT(ends({"a", "<|end|>", "<|endoftext|>"}), ElementsAre(1, 2));
  EXPECT_THAT(ends({"a", "<|end|>", "<|return|>", "<|call|>"}), ElementsAre(2, 3));
}

TEST_F(GgufPages, AKeyThatNobodyReadIsRefused) {
  const std::pair<const char*, GgufValues> cases[] = {
      {"'llama.attention.clamp_kqv'", {{"attention.clamp_kqv", 8.0f}}},
      {"'llama.logit_scale'", {{"logit_scale", 0.0625f}}},
      {"'llama.expert_gating_func' is 2",
       {{"expert_count", 3u}, {"expert_used_count", 2u}, {"expert_gating_func", 2u}}}};
  for (const auto& [named, more] : cases) {
    const auto spec = read_gguf(keys("llama", 2, more), GgufShapes().shapes());
    ASSERT_FALSE(spec) << named;
    EXPECT_EQ(spec.error().code, ErrorCode::unsupported) << named;
    EXPECT_THAT(spec.error().message, HasSubstr(named));
  }
}

}  // namespace
}  // namespace shoal::model
