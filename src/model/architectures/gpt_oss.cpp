// gpt-oss (https://arxiv.org/abs/2508.10925): attention with a sink for each head and biases everywhere,
// every other layer in a sliding window, positions stretched by yarn, and in every layer a mixture whose
// experts have biases and a clamped gate.
//
// Published files hold gate and up of an expert as alternating rows of one MXFP4 matrix, unquantised ones as
// alternating columns of a matrix [inputs, outputs]; MLX and GGUF keep them apart. GGUF has no key that says
// yarn's range is not rounded, which it never is here.
#include <array>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/config.h"
#include "model/experts.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

constexpr double kAlpha = 1.702, kLimit = 7;

// What the layers of one model share.
struct Layers {
  Sizes sizes;
  RopeSpec rope;
  bool attention_bias = true;
  std::vector<uint32_t> windows;  // of each layer
  engine::RouterOp router;
  engine::Activation activation;
  uint32_t expert_width = 0;
};

engine::Activation clamped_swiglu(double alpha, double limit) {
  return {.kind = engine::Activation::Kind::clamped_swiglu,
          .alpha = static_cast<float>(alpha),
          .limit = static_cast<float>(limit)};
}

// A softmax over the chosen experts is one over all, divided by the sum of the chosen.
engine::RouterOp softmax_router(uint32_t experts, uint32_t used) {
  return {
      .score = engine::RouterOp::Score::softmax, .expert_count = experts, .used = used, .normalise = true};
}

// Positions as the family has them where config.json says nothing.
Result<RopeSpec> read_default_rope(Fields& fields, RopeOptions options) {
  const JsonObject config = {{"rope_scaling",
                              {{"rope_type", "yarn"},
                               {"factor", 32.0},
                               {"beta_fast", 32.0},
                               {"beta_slow", 1.0},
                               {"truncate", false},
                               {"original_max_position_embeddings", 4096}}}};
  SHOAL_TRY(const auto theta, fields.get_positive("rope_theta"));
  options.default_theta = theta.value_or(options.default_theta);
  Fields assumed(config, fields.architecture());
  return read_rope(assumed, options);
}

Result<Layers> read_layers(Fields& fields) {
  Layers layers;
  SHOAL_TRY(
      layers.sizes,
      read_sizes(fields, {.kv_heads = 8, .head_dim = 64, .context_tokens = 131072, .norm_epsilon = 1e-5}));
  const RopeOptions rope{.head_dim = layers.sizes.head_dim,
                         .context_tokens = layers.sizes.context_tokens,
                         .default_theta = 150000};
  const bool is_stated = fields.get("rope_scaling") || fields.get("rope_parameters");
  SHOAL_TRY(layers.rope, is_stated ? read_rope(fields, rope) : read_default_rope(fields, rope));
  SHOAL_TRY(layers.attention_bias, fields.get_flag("attention_bias", true));
  const auto is_even = [](uint32_t layer) { return layer % 2 == 0; };
  SHOAL_TRY(layers.windows, read_windows(fields, layers.sizes.layers, 128, is_even));
  SHOAL_TRY(const uint32_t experts, read_expert_count(fields, 128));
  SHOAL_TRY(const auto used, fields.get_count("num_experts_per_tok", limits::kMaxExperts));
  layers.router = softmax_router(experts, used.value_or(4));
  SHOAL_TRY_VOID(check_router(layers.router, "config.json"));
  SHOAL_TRY_VOID(fields.expect_text("hidden_act", "silu"));
  SHOAL_TRY(const auto alpha, fields.get_positive("swiglu_alpha"));
  SHOAL_TRY(const auto limit, fields.get_positive("swiglu_limit"));
  layers.activation = clamped_swiglu(alpha.value_or(kAlpha), limit.value_or(kLimit));
  SHOAL_TRY(const auto width, fields.get_count("intermediate_size", limits::kMaxWidth));
  layers.expert_width = width.value_or(2880);
  return layers;
}

AttentionSpec attention_of(const Layers& layers, uint32_t layer) {
  AttentionSpec attention = make_attention(layers.sizes, layers.rope);
  attention.window = layers.windows[layer];
  return attention;
}

TensorRef stack_of(std::string name, std::vector<uint64_t> shape) {
  TensorRef ref(std::move(name));
  ref.shape = std::move(shape);
  return ref;
}

// Gate and up alternate: the outputs of an expert with even numbers are the gate's.
void name_joint_experts(MixtureSpec& mixture, const std::string& prefix, uint64_t hidden_size,
                        const Checkpoint& checkpoint) {
  const uint32_t experts = mixture.router_op.expert_count;
  const uint64_t width = mixture.width;
  const engine::Runs even{.first = 0, .length = 1, .stride = 2, .count = mixture.width};
  const engine::Runs odd{.first = 1, .length = 1, .stride = 2, .count = mixture.width};
  const formats::TensorInfo* tensor = checkpoint.find(prefix + "gate_up_proj");
  const bool outputs_first = tensor && tensor->type == formats::TensorType::mxfp4_pairs;
  TensorRef gate, down;
  if (outputs_first) {
    gate = stack_of(prefix + "gate_up_proj", {experts, 2 * width, hidden_size});
    down = stack_of(prefix + "down_proj", {experts, hidden_size, width});
  } else {
    gate = stack_of(prefix + "gate_up_proj", {experts, hidden_size, 2 * width});
    down = stack_of(prefix + "down_proj", {experts, width, hidden_size});
  }
  gate.transposed = down.transposed = !outputs_first;
  TensorRef up = gate;
  (outputs_first ? gate.rows : gate.columns) = even;
  (outputs_first ? up.rows : up.columns) = odd;
  mixture.gate = stack_parts(gate, experts, checkpoint);
  mixture.up = stack_parts(up, experts, checkpoint);
  mixture.down = stack_parts(down, experts, checkpoint);
  TensorRef gate_bias = stack_of(prefix + "gate_up_proj_bias", {experts, 2 * width});
  TensorRef up_bias = gate_bias;
  gate_bias.rows = even;
  up_bias.rows = odd;
  mixture.gate_bias = stack_parts(gate_bias, experts, checkpoint);
  mixture.up_bias = stack_parts(up_bias, experts, checkpoint);
  mixture.down_bias =
      stack_parts(stack_of(prefix + "down_proj_bias", {experts, hidden_size}), experts, checkpoint);
}

// MLX and GGUF: six stacks. `prefix` and what follows the names of the projections differ.
void name_separate_experts(MixtureSpec& mixture, const std::array<std::string, 3>& names,
                           uint64_t hidden_size, const Checkpoint& checkpoint) {
  const uint32_t experts = mixture.router_op.expert_count;
  const uint64_t width = mixture.width;
  const auto stack = [&](const std::string& name, std::vector<uint64_t> shape) {
    return stack_parts(stack_of(name, std::move(shape)), experts, checkpoint);
  };
  mixture.gate = stack(names[0] + ".weight", {experts, width, hidden_size});
  mixture.up = stack(names[1] + ".weight", {experts, width, hidden_size});
  mixture.down = stack(names[2] + ".weight", {experts, hidden_size, width});
  mixture.gate_bias = stack(names[0] + ".bias", {experts, width});
  mixture.up_bias = stack(names[1] + ".bias", {experts, width});
  mixture.down_bias = stack(names[2] + ".bias", {experts, hidden_size});
}

MixtureSpec mixture_of(const Layers& layers) {
  MixtureSpec mixture;
  mixture.router_op = layers.router;
  mixture.width = layers.expert_width;
  mixture.activation = layers.activation;
  return mixture;
}

Result<DecoderSpec> read_config(Fields& fields, const Checkpoint& checkpoint) {
  SHOAL_TRY(const Layers layers, read_layers(fields));
  SHOAL_TRY(const bool tied, fields.get_flag("tie_word_embeddings", false));
  DecoderSpec spec = make_spec(fields.architecture(), layers.sizes);
  name_model(spec, tied);
  for (uint32_t i = 0; i < layers.sizes.layers; ++i) {
    const std::string prefix = layer_prefix(i), experts = prefix + "mlp.experts.";
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, prefix);
    AttentionSpec attention = attention_of(layers, i);
    name_attention(attention, prefix, layers.attention_bias, layers.attention_bias);
    attention.sinks = TensorRef(prefix + "self_attn.sinks");
    layer.mixer = std::move(attention);
    MixtureSpec mixture = mixture_of(layers);
    mixture.router = TensorRef(prefix + "mlp.router.weight");
    mixture.router_bias = TensorRef(prefix + "mlp.router.bias");
    if (checkpoint.find(experts + "gate_proj.weight")) {
      name_separate_experts(mixture, {experts + "gate_proj", experts + "up_proj", experts + "down_proj"},
                            layers.sizes.hidden_size, checkpoint);
    } else {
      name_joint_experts(mixture, experts, layers.sizes.hidden_size, checkpoint);
    }
    layer.feed_forward = std::move(mixture);
  }
  return spec;
}

Result<Layers> read_gguf_layers(Metadata& metadata) {
  Layers layers;
  SHOAL_TRY(layers.sizes, read_sizes(metadata));
  SHOAL_TRY(layers.rope, read_rope(metadata, {.head_dim = layers.sizes.head_dim,
                                              .context_tokens = layers.sizes.context_tokens,
                                              .default_theta = 150000,
                                              .yarn_whole_indices = false}));
  SHOAL_TRY(const uint32_t window,
            metadata.get_whole("attention.sliding_window", limits::kMaxContextTokens, 0));
  for (uint32_t i = 0; i < layers.sizes.layers; ++i) layers.windows.push_back(i % 2 == 0 ? window : 0);
  SHOAL_TRY(const uint32_t experts, metadata.require_count("expert_count", limits::kMaxExperts));
  SHOAL_TRY(const uint32_t used, metadata.require_count("expert_used_count", limits::kMaxExperts));
  layers.router = softmax_router(experts, used);
  SHOAL_TRY_VOID(check_router(layers.router, metadata.architecture()));
  layers.activation = clamped_swiglu(kAlpha, kLimit);
  SHOAL_TRY(layers.expert_width, metadata.require_count("expert_feed_forward_length", limits::kMaxWidth));
  metadata.pass("feed_forward_length");  // the same
  return layers;
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(const Layers layers, read_gguf_layers(metadata));
  const Checkpoint& checkpoint = metadata.checkpoint();
  DecoderSpec spec = make_spec(metadata.architecture(), layers.sizes);
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < layers.sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    layer.mixer_norm = TensorRef(prefix + "attn_norm.weight");
    layer.feed_forward_norm = TensorRef(prefix + "post_attention_norm.weight");
    AttentionSpec attention = attention_of(layers, i);
    name_gguf_attention(attention, prefix, checkpoint);
    attention.sinks = TensorRef(prefix + "attn_sinks.weight");
    layer.mixer = std::move(attention);
    MixtureSpec mixture = mixture_of(layers);
    mixture.router = TensorRef(prefix + "ffn_gate_inp.weight");
    mixture.router_bias = TensorRef(prefix + "ffn_gate_inp.bias");
    name_separate_experts(mixture,
                          {prefix + "ffn_gate_exps", prefix + "ffn_up_exps", prefix + "ffn_down_exps"},
                          layers.sizes.hidden_size, checkpoint);
    layer.feed_forward = std::move(mixture);
  }
  return spec;
}

}  // namespace

const Architecture kGptOss{"gpt_oss", "GptOssForCausalLM", "gpt-oss", read_config, read_gguf};

}  // namespace shoal::model
