// Gemma 2 (https://arxiv.org/abs/2408.00118) and the text models of Gemma 3
// (https://arxiv.org/abs/2503.19786): scaled embeddings, norms before and after each half of a layer that
// multiply by 1 + w, windows on most layers. Gemma 2 caps scores and logits; Gemma 3 norms queries and keys,
// and its windowed layers rotate by a base of their own. In GGUF the 1 is part of w. Rotary pairs are halves
// in both formats.
#include <cmath>
#include <fmt/format.h>
#include <variant>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

constexpr engine::Activation kGelu{.kind = engine::Activation::Kind::gelu_tanh};

float inverse_root(double value) {
  return static_cast<float>(1 / std::sqrt(value));
}

DecoderSpec make_gemma(std::string_view architecture, const Sizes& sizes) {
  DecoderSpec spec = make_spec(architecture, sizes);
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(sizes.hidden_size)));
  return spec;
}

Result<float> read_cap(Fields& fields, std::string_view name, double absent) {
  SHOAL_TRY(const double cap, fields.get_number(name, fields.contains(name) ? 0 : absent));
  return static_cast<float>(cap);
}

// What differs by family and by type of layer.
struct Layers {
  std::vector<uint32_t> windows;
  RopeSpec full, sliding;
  float scale = 0;
  float softcap = 0;
  bool head_norms = false;
  bool biases = false;
  uint32_t width = 0;
  engine::Activation activation;

  AttentionSpec attention(const Sizes& sizes, uint32_t layer, bool slides) const {
    AttentionSpec attention = make_attention(sizes, slides ? sliding : full);
    attention.scale = scale;
    attention.softcap = softcap;
    attention.window = windows[layer];
    return attention;
  }
};

Result<Layers> read_layers(Fields& fields, const Sizes& sizes) {
  Layers layers;
  SHOAL_TRY(const auto divisor, fields.get_positive("query_pre_attn_scalar"));
  layers.scale = inverse_root(divisor.value_or(256));
  SHOAL_TRY(layers.biases, fields.get_flag("attention_bias", false));
  SHOAL_TRY(const auto width, fields.get_count("intermediate_size", limits::kMaxWidth));
  layers.width = width.value_or(9216);
  SHOAL_TRY(layers.activation, read_activation(fields, "hidden_activation", kGelu));
  SHOAL_TRY_VOID(fields.expect_flag("use_bidirectional_attention", false));
  const RopeOptions rope{.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens};
  if (fields.architecture() == "gemma2") {
    SHOAL_TRY(layers.softcap, read_cap(fields, "attn_logit_softcapping", 50));
    SHOAL_TRY(layers.full, read_rope(fields, rope));
    layers.sliding = layers.full;
    SHOAL_TRY(layers.windows,
              read_windows(fields, sizes.layers, 4096, [](uint32_t layer) { return layer % 2 == 0; }));
    return layers;
  }
  layers.head_norms = true;
  SHOAL_TRY(layers.softcap, read_cap(fields, "attn_logit_softcapping", 0));
  RopeOptions full = rope, sliding = rope;
  full.layer_type = "full_attention";
  full.default_theta = 1e6;
  sliding.layer_type = "sliding_attention";
  sliding.theta_field = "rope_local_base_freq";
  SHOAL_TRY(layers.full, read_rope(fields, full));
  SHOAL_TRY(layers.sliding, read_rope(fields, sliding));
  SHOAL_TRY(const auto pattern, fields.get_count("sliding_window_pattern", limits::kMaxLayers));
  SHOAL_TRY(layers.windows, read_windows(fields, sizes.layers, 4096, [&](uint32_t layer) {
              return (layer + 1) % pattern.value_or(6) != 0;
            }));
  return layers;
}

Result<DecoderSpec> read_text(Fields& fields, const Checkpoint& checkpoint, bool tied) {
  const bool second = fields.architecture() == "gemma2";
  SHOAL_TRY(const Sizes sizes, read_sizes(fields, {.layers = 26,
                                                   .hidden_size = 2304,
                                                   .query_heads = 8,
                                                   .kv_heads = 4,
                                                   .head_dim = 256,
                                                   .context_tokens = second ? 8192U : 131072U}));
  SHOAL_TRY(const Layers layers, read_layers(fields, sizes));
  const std::string model = find_model_prefix(checkpoint);
  DecoderSpec spec = make_gemma(fields.architecture(), sizes);
  spec.norm_map = engine::VectorMap::plus_one;
  SHOAL_TRY(spec.final_softcap, read_cap(fields, "final_logit_softcapping", second ? 30 : 0));
  name_model(spec, tied, model);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i, model);
    LayerSpec& layer = spec.layers[i];
    layer.mixer_norm = TensorRef(prefix + "input_layernorm.weight");
    layer.mixer_post_norm = TensorRef(prefix + "post_attention_layernorm.weight");
    layer.feed_forward_norm = TensorRef(prefix + "pre_feedforward_layernorm.weight");
    layer.feed_forward_post_norm = TensorRef(prefix + "post_feedforward_layernorm.weight");
    AttentionSpec attention = layers.attention(sizes, i, layers.windows[i] != 0);
    name_attention(attention, prefix, layers.biases, layers.biases);
    if (layers.head_norms) {
      attention.query_norm = TensorRef(prefix + "self_attn.q_norm.weight");
      attention.key_norm = TensorRef(prefix + "self_attn.k_norm.weight");
    }
    layer.mixer = std::move(attention);
    layer.feed_forward = dense_feed_forward(prefix + "mlp.", layers.width, layers.activation);
  }
  return spec;
}

Result<DecoderSpec> read_config(Fields& fields, const Checkpoint& checkpoint) {
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", true));
  return read_text(fields, checkpoint, tied);
}

// The text model of a multimodal checkpoint; pictures are not for here.
Result<DecoderSpec> read_multimodal(Fields& fields, const Checkpoint& checkpoint) {
  SHOAL_TRY(auto text, fields.get_object("text_config"));
  if (!text) return read_config(fields, checkpoint);  // as MLX writes text models out of it
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", true));
  SHOAL_TRY_VOID(text->expect_text("model_type", "gemma3_text"));
  text->get("tie_word_embeddings");  // the outer one counts
  SHOAL_TRY(DecoderSpec spec, read_text(*text, checkpoint, tied));
  SHOAL_TRY_VOID(text->refuse_unused());
  spec.ignored_prefixes = multimodal_prefixes();
  return spec;
}

// llama.cpp's converter does not store query_pre_attn_scalar: it is the head size, but for the 27 billion
// models, which are known by their number of layers.
float gguf_scale(const Sizes& sizes, uint32_t layers_of_largest) {
  if (sizes.layers != layers_of_largest) return inverse_root(sizes.head_dim);
  return inverse_root(static_cast<double>(sizes.hidden_size) / sizes.query_heads);
}

Result<float> read_cap(Metadata& metadata, std::string_view key, double absent) {
  SHOAL_TRY(const auto cap, metadata.get_positive(key));
  return static_cast<float>(cap.value_or(absent));
}

constexpr double kEpsilon = 1e-6;

// The rotary positions of Gemma 3. Ollama's files have names of their own for the two bases, and leave out
// that the models of 131072 tokens are stretched eightfold.
Result<> read_gguf_ropes(Metadata& metadata, RopeOptions rope, Layers& layers) {
  constexpr uint32_t kStretchedContext = 131072;
  SHOAL_TRY(const auto full, metadata.get_positive("rope.global.freq_base"));
  SHOAL_TRY(const auto sliding, metadata.get_positive("rope.local.freq_base"));
  const formats::GgufMetadata& all = *metadata.checkpoint().gguf();
  const bool from_ollama = full || sliding || all.find(metadata.name("mm.tokens_per_image"));
  rope.default_theta = full.value_or(1e6);
  if (from_ollama && rope.context_tokens >= kStretchedContext) rope.default_factor = 8;
  SHOAL_TRY(layers.full, read_rope(metadata, rope));
  rope.default_theta = sliding.value_or(10000);
  rope.theta_key = "rope.freq_base_swa";
  rope.scaled = false;
  SHOAL_TRY(layers.sliding, read_rope(metadata, rope));
  return {};
}

// The layers with a window: all but every so many, or as a list says.
Result<std::vector<bool>> read_gguf_sliding(Metadata& metadata, uint32_t layers, uint32_t default_pattern) {
  constexpr std::string_view kPattern = "attention.sliding_window_pattern";
  const formats::GgufValue* value = metadata.checkpoint().gguf()->find(metadata.name(kPattern));
  std::vector<bool> sliding(layers);
  if (value && std::holds_alternative<std::vector<bool>>(*value)) {
    SHOAL_TRY(sliding, metadata.get_flags(kPattern));
    if (sliding.size() == layers) return sliding;
    return fail(ErrorCode::malformed, fmt::format("'{}' has {} entries for {} layers",
                                                  metadata.name(kPattern), sliding.size(), layers));
  }
  SHOAL_TRY(const auto pattern, metadata.get_count(kPattern, limits::kMaxLayers));
  for (uint32_t i = 0; i < layers; ++i) sliding[i] = (i + 1) % pattern.value_or(default_pattern) != 0;
  return sliding;
}

Result<Layers> read_gguf_layers(Metadata& metadata, const Sizes& sizes) {
  const bool second = metadata.architecture() == "gemma2";
  Layers layers;
  layers.head_norms = !second;
  layers.activation = kGelu;
  layers.scale = gguf_scale(sizes, second ? 46 : 62);
  SHOAL_TRY(layers.width, metadata.require_count("feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(layers.softcap, read_cap(metadata, "attn_logit_softcapping", second ? 50 : 0));
  const RopeOptions rope{.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens};
  if (second) {
    SHOAL_TRY(layers.full, read_rope(metadata, rope));
    layers.sliding = layers.full;
  } else {
    SHOAL_TRY_VOID(read_gguf_ropes(metadata, rope, layers));
  }
  SHOAL_TRY(const uint32_t window,
            metadata.get_whole("attention.sliding_window", limits::kMaxContextTokens, second ? 4096 : 0));
  SHOAL_TRY(const std::vector<bool> sliding, read_gguf_sliding(metadata, sizes.layers, second ? 2 : 6));
  for (const bool slides : sliding) layers.windows.push_back(slides ? window : 0);
  return layers;
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  const Checkpoint& checkpoint = metadata.checkpoint();
  SHOAL_TRY(const Sizes sizes, read_sizes(metadata, kEpsilon));
  SHOAL_TRY(const Layers layers, read_gguf_layers(metadata, sizes));
  DecoderSpec spec = make_gemma(metadata.architecture(), sizes);
  const bool second = metadata.architecture() == "gemma2";
  SHOAL_TRY(spec.final_softcap, read_cap(metadata, "final_logit_softcapping", second ? 30 : 0));
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_gguf_layer_norms(layer, prefix);
    layer.mixer_post_norm = TensorRef(prefix + "post_attention_norm.weight");
    layer.feed_forward_post_norm = TensorRef(prefix + "post_ffw_norm.weight");
    AttentionSpec attention = layers.attention(sizes, i, layers.windows[i] != 0);
    name_gguf_attention(attention, prefix, checkpoint);
    if (layers.head_norms) {
      attention.query_norm = TensorRef(prefix + "attn_q_norm.weight");
      attention.key_norm = TensorRef(prefix + "attn_k_norm.weight");
    }
    layer.mixer = std::move(attention);
    layer.feed_forward = gguf_dense_feed_forward(prefix, layers.width, layers.activation, checkpoint);
  }
  return spec;
}

}  // namespace

const Architecture kGemma2{"gemma2", "Gemma2ForCausalLM", "gemma2", read_config, read_gguf};
const Architecture kGemma3{"gemma3_text", "Gemma3ForCausalLM", "gemma3", read_config, read_gguf};
const Architecture kGemma3Multimodal{
    "gemma3", "Gemma3ForConditionalGeneration", "", read_multimodal, nullptr, "Gemma3ForCausalLM"};

}  // namespace shoal::model
