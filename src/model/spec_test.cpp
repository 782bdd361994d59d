// What read_decoder_spec reads from the fixtures, and what it refuses.
#include <cmath>
#include <cstring>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "model/decoder_spec.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kRoot = SHOAL_SOURCE_DIR;
const std::filesystem::path kFixtures = kRoot / "tests/fixtures";

const AttentionSpec& attention_of(const LayerSpec& layer) {
  return std::get<AttentionSpec>(layer.mixer);
}
const DenseSpec& dense_of(const LayerSpec& layer) {
  return std::get<DenseSpec>(layer.feed_forward);
}

struct Read {
  Checkpoint checkpoint;
  DecoderSpec spec;
};

Result<Read> read(const std::filesystem::path& path) {
  SHOAL_TRY(Checkpoint checkpoint, Checkpoint::open(path));
  SHOAL_TRY(DecoderSpec spec, read_decoder_spec(checkpoint));
  return Read{std::move(checkpoint), std::move(spec)};
}

// The frequencies that `transformers` computes for llama3 scaling, by its formula in wavelengths.
double llama3_frequency(int i, int dimensions, double theta, double factor, double original) {
  const double plain = std::pow(theta, -2.0 * i / dimensions);
  const double wavelength = 2 * M_PI / plain;
  const double low = 1, high = 4;
  if (wavelength > original / low) return plain / factor;
  if (wavelength < original / high) return plain;
  const double smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * plain / factor + smooth * plain;
}

TEST(DecoderSpec, ReadsLlamaFromSafetensors) {
  auto model = read(kFixtures / "models/llama");
  ASSERT_TRUE(model) << model.error().text();
  const DecoderSpec& spec = model->spec;
  EXPECT_EQ(spec.architecture, "llama");
  EXPECT_EQ(spec.hidden_size, 128u);
  EXPECT_EQ(spec.vocabulary_size, 400u);
  EXPECT_EQ(spec.context_tokens, 4096u);
  EXPECT_FLOAT_EQ(spec.norm_epsilon, 1e-5f);
  ASSERT_EQ(spec.layer_count(), 3u);
  EXPECT_EQ(spec.head.name, "lm_head.weight");
  const LayerSpec& layer = spec.layers[2];
  EXPECT_EQ(attention_of(layer).query_heads, 4u);
  EXPECT_EQ(attention_of(layer).kv_heads, 2u);
  EXPECT_EQ(attention_of(layer).head_dim, 32u);
  EXPECT_FLOAT_EQ(attention_of(layer).scale, 1 / std::sqrt(32.0f));
  EXPECT_EQ(attention_of(layer).window, 0u);
  EXPECT_EQ(dense_of(layer).width, 128u);
  EXPECT_EQ(dense_of(layer).activation.kind, engine::Activation::Kind::silu);
  EXPECT_EQ(dense_of(layer).down.name, "model.layers.2.mlp.down_proj.weight");
  EXPECT_EQ(attention_of(layer).query_norm.name, "");
  EXPECT_EQ(attention_of(layer).query_bias.name, "");
  const RopeSpec& rope = attention_of(layer).rope;
  EXPECT_EQ(rope.pairs, engine::RopePairs::halves);
  EXPECT_EQ(rope.dimensions, 32u);
  EXPECT_EQ(rope.magnitude, 1.0f);
  ASSERT_EQ(rope.inverse_frequencies.size(), 16u);
  for (int i = 0; i < 16; ++i) {
    EXPECT_FLOAT_EQ(rope.inverse_frequencies[i], llama3_frequency(i, 32, 500000, 8, 64)) << i;
  }
}

TEST(DecoderSpec, ReadsTheNewStyleConfigurationOfATiedLlama) {
  auto model = read(kFixtures / "models/llama_tied");
  ASSERT_TRUE(model) << model.error().text();
  const DecoderSpec& spec = model->spec;
  EXPECT_EQ(spec.hidden_size, 96u);
  EXPECT_EQ(spec.vocabulary_size, 512u);
  EXPECT_EQ(spec.head.name, spec.embedding.name);
  EXPECT_EQ(attention_of(spec.layers[0]).head_dim, 32u)
      << "head_dim is stated and is not hidden_size / heads";
  EXPECT_EQ(attention_of(spec.layers[0]).kv_heads, 1u);
  EXPECT_EQ(dense_of(spec.layers[0]).width, 160u);
  const auto& frequencies = attention_of(spec.layers[0]).rope.inverse_frequencies;
  for (int i = 0; i < 16; ++i) EXPECT_FLOAT_EQ(frequencies[i], llama3_frequency(i, 32, 500000, 32, 64)) << i;
}

TEST(DecoderSpec, ReadsQwen3FromSafetensors) {
  auto model = read(kFixtures / "models/qwen3");
  ASSERT_TRUE(model) << model.error().text();
  const DecoderSpec& spec = model->spec;
  EXPECT_EQ(spec.architecture, "qwen3");
  EXPECT_EQ(spec.vocabulary_size, 448u);
  EXPECT_EQ(spec.context_tokens, 40960u);
  EXPECT_FLOAT_EQ(spec.norm_epsilon, 1e-6f);
  EXPECT_EQ(spec.head.name, "model.embed_tokens.weight");
  const LayerSpec& layer = spec.layers[1];
  EXPECT_EQ(attention_of(layer).query_norm.name, "model.layers.1.self_attn.q_norm.weight");
  EXPECT_EQ(attention_of(layer).key_norm.name, "model.layers.1.self_attn.k_norm.weight");
  for (int i = 0; i < 16; ++i) {
    EXPECT_FLOAT_EQ(attention_of(layer).rope.inverse_frequencies[i], std::pow(1e6, -2.0 * i / 32)) << i;
  }
}

TEST(DecoderSpec, GgufOfLlamaTurnsNeighboursByTheSameFrequencies) {
  auto gguf = read(kFixtures / "gguf/llama-bf16.gguf");
  auto safetensors = read(kFixtures / "models/llama");
  ASSERT_TRUE(gguf) << gguf.error().text();
  ASSERT_TRUE(safetensors) << safetensors.error().text();
  EXPECT_EQ(gguf->spec.vocabulary_size, 400u);
  EXPECT_EQ(gguf->spec.head.name, "output.weight");
  ASSERT_EQ(gguf->spec.layer_count(), 3u);
  EXPECT_EQ(gguf->spec.context_tokens, 4096u);
  const RopeSpec& rope = attention_of(gguf->spec.layers[0]).rope;
  EXPECT_EQ(rope.pairs, engine::RopePairs::interleaved);
  const auto& same = attention_of(safetensors->spec.layers[0]).rope.inverse_frequencies;
  ASSERT_EQ(rope.inverse_frequencies.size(), same.size());
  for (size_t i = 0; i < same.size(); ++i) EXPECT_NEAR(rope.inverse_frequencies[i] / same[i], 1, 1e-6) << i;
}

TEST(DecoderSpec, GgufOfQwen3TurnsHalves) {
  auto model = read(kFixtures / "gguf/qwen3-bf16.gguf");
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_EQ(model->spec.architecture, "qwen3");
  EXPECT_EQ(attention_of(model->spec.layers[0]).rope.pairs, engine::RopePairs::halves);
  EXPECT_EQ(attention_of(model->spec.layers[0]).query_norm.name, "blk.0.attn_q_norm.weight");
  EXPECT_EQ(model->spec.head.name, "token_embd.weight");
  EXPECT_EQ(model->spec.hidden_size, 96u);
}

TEST(DecoderSpec, ReadsQuantisedGgufs) {
  for (const char* type : {"Q4_0", "Q8_0", "Q4_K_M", "Q6_K"}) {
    auto model = read(kFixtures / ("quants/llama_q-" + std::string(type)) / "model.gguf");
    ASSERT_TRUE(model) << type << ": " << model.error().text();
    EXPECT_EQ(model->spec.layer_count(), 2u) << type;
    EXPECT_EQ(model->spec.hidden_size, 256u) << type;
    EXPECT_EQ(model->spec.vocabulary_size, 288u) << type;
    EXPECT_EQ(attention_of(model->spec.layers[0]).head_dim, 64u) << type;
    EXPECT_EQ(attention_of(model->spec.layers[0]).kv_heads, 1u) << type;
  }
}

TEST(DecoderSpec, ReadsTheBundledModel) {
  auto model = read(kRoot / "models/demo/shoal-demo-q8_0.gguf");
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_EQ(model->spec.architecture, "qwen3");
  EXPECT_EQ(model->spec.layer_count(), 8u);
  EXPECT_EQ(model->spec.vocabulary_size, 4096u);
  EXPECT_EQ(model->spec.context_tokens, 2048u);
  EXPECT_EQ(end_of_sequence_ids(model->checkpoint).front(), 4093);
}

TEST(ModelCost, CountsBytesFlopsAndKvOfALayer) {
  auto model = read(kFixtures / "models/llama");
  ASSERT_TRUE(model) << model.error().text();
  const auto cost = model_cost(model->spec, model->checkpoint);
  ASSERT_TRUE(cost) << cost.error().text();
  ASSERT_EQ(cost->layers.size(), 3u);
  const uint64_t weights = 2 * 128 * 128 + 2 * 64 * 128 + 3 * 128 * 128;
  EXPECT_EQ(cost->layers[0].weight_bytes, 2 * (weights + 2 * 128));
  EXPECT_EQ(cost->layers[0].flops_per_token, 2 * weights);
  EXPECT_EQ(cost->layers[0].kv_values_per_token, 2u * 2 * 32);
  EXPECT_EQ(cost->embedding_bytes, 400u * 128 * 2);
  EXPECT_EQ(cost->head_bytes, 400u * 128 * 2 + 128 * 2);
  EXPECT_EQ(cost->head_flops_per_token, 2u * 400 * 128);
}

TEST(ModelCost, HeadOfATiedModelIsItsEmbedding) {
  auto model = read(kFixtures / "models/qwen3");
  ASSERT_TRUE(model) << model.error().text();
  const auto cost = model_cost(model->spec, model->checkpoint);
  ASSERT_TRUE(cost) << cost.error().text();
  EXPECT_EQ(cost->head_bytes, cost->embedding_bytes);
}

TEST(EndOfSequence, ComesFromEachFormat) {
  EXPECT_THAT(end_of_sequence_ids(Checkpoint::open(kFixtures / "models/qwen3").value()), ElementsAre(428));
  EXPECT_THAT(end_of_sequence_ids(Checkpoint::open(kFixtures / "models/llama").value()), ElementsAre(398));
  const auto gguf = end_of_sequence_ids(Checkpoint::open(kFixtures / "gguf/llama-bf16.gguf").value());
  EXPECT_EQ(gguf.front(), 398);
}

TEST(DecoderSpec, RefusesEveryWrongConfigurationByFieldAndValue) {
  const std::map<std::string, std::vector<std::string>> named = {
      {"head_count_0.gguf", {"'llama.attention.head_count' is 0", "from 1 to 4096"}},
      {"head_count_kv_0.gguf", {"'llama.attention.head_count_kv' is 0"}},
      {"head_count_negative.gguf", {"'llama.attention.head_count' is -2"}},
      {"layers_1e9.gguf", {"'llama.block_count' is 1000000000", "from 1 to 1024"}},
      {"layers_string.gguf", {"'llama.block_count' is '"}},
      {"vocab_mismatch.gguf", {"'token_embd.weight' has 100 rows for 280 tokens"}},
      {"missing_tensor.gguf", {"'blk.0.ffn_up.weight' is missing"}},
      {"rope_theta_0.gguf", {"'llama.rope.freq_base' is 0"}},
      {"config_wrong_type_dir", {"config.json: 'hidden_size' is \""}},
      {"config_heads_0_dir", {"config.json: 'num_attention_heads' is 0"}},
      {"config_layers_1e9_dir", {"config.json: 'num_hidden_layers' is 1000000000"}},
      {"config_negative_dir", {"config.json: 'intermediate_size' is -64"}},
      {"config_theta_0_dir", {"config.json: 'rope_theta' is 0"}}};
  for (const auto& [file, parts] : named) {
    auto checkpoint = Checkpoint::open(kFixtures / "bad" / file);
    ASSERT_TRUE(checkpoint) << file << ": " << checkpoint.error().text();
    const auto spec = read_decoder_spec(*checkpoint);
    ASSERT_FALSE(spec) << file;
    EXPECT_EQ(spec.error().code, ErrorCode::malformed) << file << ": " << spec.error().message;
    for (const auto& part : parts) EXPECT_THAT(spec.error().message, HasSubstr(part)) << file;
  }
}

TEST(DecoderSpec, NothingInExpectJsonThatMustFailIsRead) {
  auto text = read_text_file(kFixtures / "bad/expect.json", limits::kMaxConfigBytes);
  ASSERT_TRUE(text) << text.error().text();
  auto cases = parse_json(*text, "expect.json");
  ASSERT_TRUE(cases) << cases.error().text();
  int walked = 0;
  for (const auto& entry : cases->as_array()) {
    const auto& fields = entry.as_object();
    if (fields.at("command").as_string() != "logits" || fields.at("accept").as_array().size() == 2) continue;
    const std::string file(fields.at("file").as_string());
    const auto model = read(kFixtures / "bad" / file);
    EXPECT_EQ(model.has_value(), fields.at("accept").as_array()[0] == "ok")
        << file << ": " << (model ? "was read" : model.error().text());
    ++walked;
  }
  EXPECT_GE(walked, 45);
}

// The control directory with one change to its config.json.
class ChangedConfig : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() /
                 ("shoal-spec-" + std::to_string(::getpid()) + "-" +
                  ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    std::filesystem::copy(kFixtures / "bad/good_dir/model.safetensors", directory_ / "model.safetensors");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // `changes` is a JSON object whose members replace those of the control's config.json.
  Result<DecoderSpec> read_with(const std::string& changes) {
    auto config =
        parse_json_object(read_text_file(kFixtures / "bad/good_dir/config.json", 10000).value(), "config");
    const auto changed = parse_json_object(changes, "changes");
    EXPECT_TRUE(changed) << changes;
    for (const auto& [name, value] : *changed) (*config)[name] = value;
    std::ofstream(directory_ / "config.json") << to_text(*config);
    SHOAL_TRY(auto checkpoint, Checkpoint::open(directory_));
    return read_decoder_spec(checkpoint);
  }

  std::filesystem::path directory_;
};

TEST_F(ChangedConfig, RefusesFieldsThatChangeTheMaths) {
  ASSERT_TRUE(read_with("{}")) << read_with("{}").error().text();
  const std::vector<std::pair<std::string, std::string>> changes = {
      {R"({"hidden_act":"gelu"})", "'hidden_act' is \"gelu\""},
      {R"({"sliding_window":4096})", "'sliding_window' is 4096"},
      {R"({"use_sliding_window":true,"sliding_window":64})", "'sliding_window' is 64"},
      {R"({"layer_types":["full_attention","sliding_attention"]})", "'layer_types' is [\"full_attention\""},
      {R"({"num_local_experts":8})", "'num_local_experts' is 8"},
      {R"({"num_experts":64})", "'num_experts' is 64"},
      {R"({"partial_rotary_factor":0.5})", "'partial_rotary_factor' is 5E-1"},
      {R"({"rope_parameters":{"rope_type":"default","partial_rotary_factor":0.25}})",
       "partial_rotary_factor"},
      {R"({"attn_logit_softcapping":50.0})", "'attn_logit_softcapping' is 5E1"},
      {R"({"pretraining_tp":2})", "'pretraining_tp' is 2"},
      {R"({"residual_multiplier":0.22})", "'residual_multiplier' is 2.2E-1"},
      {R"({"use_qk_norm":true})", "'use_qk_norm' is true"},
      {R"({"no_rope_layers":[1,0]})", "'no_rope_layers' is [1,0]"},
      {R"({"logits_scaling":8})", "'logits_scaling' is 8"},
      {R"({"is_causal":false})", "'is_causal' is false"},
      {R"({"rope_scaling":{"rope_type":"dynamic","factor":2.0}})", "is \"dynamic\""},
      {R"({"rope_parameters":{"full_attention":{"rope_theta":10000}}})", "'rope_parameters.full_attention'"},
      {R"({"model_type":"mamba"})", "'model_type' is 'mamba'"},
      {R"({"architectures":["LlamaForSequenceClassification"]})", "LlamaForSequenceClassification"}};
  for (const auto& [change, named] : changes) {
    const auto spec = read_with(change);
    ASSERT_FALSE(spec) << change;
    EXPECT_EQ(spec.error().code, ErrorCode::unsupported) << change << ": " << spec.error().message;
    EXPECT_THAT(spec.error().message, HasSubstr(named)) << change;
  }
}

TEST_F(ChangedConfig, TakesFieldsThatSayNothingNew) {
  for (const char* change : {R"({"hidden_act":"swish"})", R"({"sliding_window":null})",
                             R"({"sliding_window":4096,"use_sliding_window":false})",
                             R"({"partial_rotary_factor":1.0})", R"({"layer_types":["full_attention"]})",
                             R"({"rope_scaling":null})", R"({"rope_scaling":{"type":"default"}})",
                             R"({"residual_multiplier":1.0,"use_qk_norm":false,"is_causal":true})",
                             R"({"head_dim":null})", R"({"num_experts":0})", R"({"attention_bias":null})"}) {
    const auto spec = read_with(change);
    EXPECT_TRUE(spec) << change << ": " << spec.error().text();
  }
}

TEST_F(ChangedConfig, StretchesPositionsLinearlyInBothStyles) {
  for (const char* change : {R"({"rope_scaling":{"type":"linear","factor":4.0}})",
                             R"({"rope_parameters":{"rope_type":"linear","factor":4.0}})"}) {
    const auto spec = read_with(change);
    ASSERT_TRUE(spec) << change << ": " << spec.error().text();
    const auto& frequencies = attention_of(spec->layers[0]).rope.inverse_frequencies;
    ASSERT_EQ(frequencies.size(), 4u);
    EXPECT_FLOAT_EQ(frequencies[0], 0.25f);
    EXPECT_FLOAT_EQ(frequencies[2], 0.0025f);
  }
}

TEST_F(ChangedConfig, InnerThetaStandsBeforeTheOuter) {
  const auto spec =
      read_with(R"({"rope_theta":10000,"rope_parameters":{"rope_type":"default","rope_theta":16}})");
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_FLOAT_EQ(attention_of(spec->layers[0]).rope.inverse_frequencies[2], 0.25f);
}

TEST_F(ChangedConfig, NamesTensorsThatContradictTheConfiguration) {
  const std::vector<std::pair<std::string, std::string>> changes = {
      {R"({"intermediate_size":64})",
       "'model.layers.0.mlp.gate_proj.weight' has the shape [32, 16], the configuration asks for [64, 16]"},
      {R"({"num_hidden_layers":2})", "'model.layers.1.input_layernorm.weight' is missing"},
      {R"({"attention_bias":true})", "'model.layers.0.self_attn.q_proj.bias' is missing"},
      {R"({"mlp_bias":true})", "'model.layers.0.mlp.gate_proj.bias' is missing"},
      {R"({"vocab_size":300})", "has the shape [272, 16], the configuration asks for [300, 16]"},
      {R"({"tie_word_embeddings":false})", "'lm_head.weight' is missing"}};
  for (const auto& [change, named] : changes) {
    const auto spec = read_with(change);
    ASSERT_FALSE(spec) << change;
    EXPECT_EQ(spec.error().code, ErrorCode::malformed) << spec.error().message;
    EXPECT_THAT(spec.error().message, HasSubstr(named)) << change;
  }
}

TEST_F(ChangedConfig, RefusesImpossibleNumbers) {
  for (const char* change :
       {R"({"num_key_value_heads":3})", R"({"head_dim":7})", R"({"head_dim":1000000})",
        R"({"hidden_size":17})", R"({"rms_norm_eps":-1})", R"({"rope_theta":-5})",
        R"({"max_position_embeddings":1e12})", R"({"vocab_size":1e9})", R"({"tie_word_embeddings":"yes"})",
        R"({"model_type":7})", R"({"rope_scaling":{"type":"linear"}})",
        R"({"rope_scaling":{"type":"linear","factor":0}})", R"({"rope_scaling":[]})",
        R"({"rope_theta":1e-300})",
        R"({"rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,
            "original_max_position_embeddings":64}})"}) {
    const auto spec = read_with(change);
    ASSERT_FALSE(spec) << change;
    EXPECT_EQ(spec.error().code, ErrorCode::malformed) << change << ": " << spec.error().message;
    EXPECT_THAT(spec.error().message, Not(HasSubstr("\n"))) << change;
  }
}

// A tensor that no part of the computation uses would silently change the answer.
TEST_F(ChangedConfig, RefusesTensorsWithoutAPlace) {
  std::filesystem::copy(kFixtures / "models/qwen3/model.safetensors", directory_ / "model.safetensors",
                        std::filesystem::copy_options::overwrite_existing);
  const auto spec =
      read_with(R"({"hidden_size":96,"intermediate_size":192,"num_hidden_layers":3,"head_dim":32,
      "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":448})");
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::unsupported);
  EXPECT_THAT(spec.error().message, HasSubstr("_norm.weight' has no place in a llama model of 3 layers"));
}

TEST_F(ChangedConfig, EndIdsMayBeAListAndComeFromBothFiles) {
  std::ofstream(directory_ / "generation_config.json") << R"({"eos_token_id":[5,6,"x",-1]})";
  ASSERT_TRUE(read_with(R"({"eos_token_id":[6,7]})"));
  EXPECT_THAT(end_of_sequence_ids(Checkpoint::open(directory_).value()), ElementsAre(5, 6, 7));
}

}  // namespace
}  // namespace shoal::model
