// The architectures "qwen3next", "qwen35" and "qwen35moe" of GGUF: Qwen3-Next and Qwen3.5. Norms have the 1
// added, ssm_a is -exp(A_log) already, and in Qwen3.5 value heads are tiled: head h belongs to key head h
// modulo their number. Blocks after the main ones predict further tokens.
#include <fmt/format.h>

#include "base/limits.h"
#include "model/architectures/architecture.h"
#include "model/architectures/qwen_hybrid.h"
#include "model/experts.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

Result<engine::DeltaNetOp> read_delta(Metadata& metadata) {
  constexpr uint64_t kMaxTaps = 256;
  engine::DeltaNetOp delta;
  SHOAL_TRY(delta.key_heads, metadata.require_count("ssm.group_count", limits::kMaxHeads));
  SHOAL_TRY(delta.value_heads, metadata.require_count("ssm.time_step_rank", limits::kMaxHeads));
  SHOAL_TRY(delta.key_dim, metadata.require_count("ssm.state_size", limits::kMaxHeadDim));
  SHOAL_TRY(const uint32_t values, metadata.require_count("ssm.inner_size", limits::kMaxWidth));
  SHOAL_TRY(delta.kernel, metadata.require_count("ssm.conv_kernel", kMaxTaps));
  if (delta.value_heads % delta.key_heads != 0 || values % delta.value_heads != 0) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is {}, which does not go with {} key heads and {} values in all",
                            metadata.name("ssm.time_step_rank"), delta.value_heads, delta.key_heads, values));
  }
  delta.value_dim = values / delta.value_heads;
  delta.tiled = metadata.architecture() != "qwen3next";
  return delta;
}

Result<std::vector<bool>> read_recurrent(Metadata& metadata, uint32_t layers) {
  constexpr std::string_view kKey = "attention.recurrent_layers";
  constexpr uint32_t kInterval = 4;
  SHOAL_TRY(std::vector<bool> recurrent, metadata.get_flags(kKey));
  SHOAL_TRY(const auto interval, metadata.get_count("full_attention_interval", limits::kMaxWidth));
  if (recurrent.empty()) {
    for (uint32_t i = 0; i < layers; ++i) recurrent.push_back((i + 1) % interval.value_or(kInterval) != 0);
  }
  if (recurrent.size() < layers) {
    return fail(ErrorCode::malformed, fmt::format("'{}' has {} entries for {} layers", metadata.name(kKey),
                                                  recurrent.size(), layers));
  }
  return recurrent;
}

Result<> read_mixture(Metadata& metadata, HybridModel& model) {
  SHOAL_TRY(const uint32_t experts, metadata.get_whole("expert_count", limits::kMaxExperts, 0));
  if (experts == 0) return {};
  SHOAL_TRY(model.router, read_grouped_router(metadata, engine::RouterOp::Score::softmax));
  SHOAL_TRY(model.router.normalise, metadata.get_flag("expert_weights_norm", true));
  model.router.normalise_epsilon = 0;
  SHOAL_TRY(model.expert_width, metadata.require_count("expert_feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(model.shared_width,
            metadata.get_whole("expert_shared_feed_forward_length", limits::kMaxWidth, model.dense_width));
  metadata.pass("expert_shared_count");  // one
  return {};
}

Result<HybridModel> read_model(Metadata& metadata, const Sizes& sizes) {
  HybridModel model;
  model.sizes = sizes;
  SHOAL_TRY(model.rope,
            read_rope(metadata, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  metadata.pass("rope.dimension_sections");
  SHOAL_TRY(model.delta, read_delta(metadata));
  SHOAL_TRY(model.recurrent, read_recurrent(metadata, sizes.layers));
  SHOAL_TRY(model.dense_width, metadata.get_whole("feed_forward_length", limits::kMaxWidth, 0));
  SHOAL_TRY_VOID(read_mixture(metadata, model));
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const bool mixture = metadata.checkpoint().find(gguf_layer_prefix(i) + "ffn_gate_inp.weight") != nullptr;
    if (mixture && model.router.expert_count == 0) return metadata.missing("expert_count");
    if (!mixture && model.dense_width == 0) return metadata.missing("feed_forward_length");
    model.mixture.push_back(mixture);
  }
  return model;
}

DeltaNetSpec delta_net(const HybridModel& model, const std::string& prefix, const Checkpoint& checkpoint) {
  const uint64_t hidden_size = model.sizes.hidden_size;
  DeltaNetSpec delta;
  delta.op = model.delta;
  if (checkpoint.find(prefix + "ssm_in.weight")) {  // older files of Qwen3-Next
    name_grouped_channels(delta, prefix + "ssm_in.weight", hidden_size);
  } else {
    name_plain_channels(delta, prefix + "attn_qkv.weight", hidden_size);
    delta.gate = TensorRef(prefix + "attn_gate.weight");
  }
  if (checkpoint.find(prefix + "ssm_ba.weight")) {
    name_grouped_rates(delta, prefix + "ssm_ba.weight", hidden_size);
  } else {
    delta.decay_input = TensorRef(prefix + "ssm_alpha.weight");
    delta.rate_input = TensorRef(prefix + "ssm_beta.weight");
  }
  delta.taps = {TensorRef(prefix + "ssm_conv1d.weight")};
  delta.taps.front().shape = {delta.op.channels(), delta.op.kernel};
  delta.decay_bias = TensorRef(prefix + "ssm_dt.bias");
  delta.decay = TensorRef(prefix + "ssm_a");
  delta.norm = TensorRef(prefix + "ssm_norm.weight");
  delta.output = TensorRef(prefix + "ssm_out.weight");
  return delta;
}

AttentionSpec gated_attention(const HybridModel& model, const std::string& prefix,
                              const Checkpoint& checkpoint) {
  AttentionSpec attention = make_attention(model.sizes, model.rope);
  name_gguf_attention(attention, prefix, checkpoint);
  name_gated_query(attention, prefix + "attn_q", model.sizes.hidden_size);
  attention.query_norm = TensorRef(prefix + "attn_q_norm.weight");
  attention.key_norm = TensorRef(prefix + "attn_k_norm.weight");
  return attention;
}

FeedForwardSpec feed_forward(const HybridModel& model, uint32_t layer, const std::string& prefix,
                             const Checkpoint& checkpoint) {
  if (!model.mixture[layer]) return gguf_dense_feed_forward(prefix, model.dense_width, {}, checkpoint);
  MixtureSpec mixture = gguf_mixture({.router = model.router, .width = model.expert_width}, prefix,
                                     model.sizes.hidden_size, checkpoint);
  const std::string gate = prefix + "ffn_gate_inp_shexp.weight";
  if (const formats::TensorInfo* tensor = checkpoint.find(gate)) {
    mixture.shared = gguf_shared_expert(prefix, model.shared_width);
    mixture.shared_gate = TensorRef(gate);
    if (tensor->shape.size() == 1) mixture.shared_gate.shape = {model.sizes.hidden_size};
  }
  return mixture;
}

Result<DecoderSpec> read_gguf(Metadata& metadata) {
  SHOAL_TRY(Sizes sizes, read_sizes(metadata));
  std::vector<std::string> predictors;
  SHOAL_TRY(sizes.layers, read_main_layers(metadata, sizes.layers, predictors));
  SHOAL_TRY(const HybridModel model, read_model(metadata, sizes));
  const Checkpoint& checkpoint = metadata.checkpoint();
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  spec.ignored_prefixes = std::move(predictors);
  name_gguf_model(spec, checkpoint);
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    layer.mixer_norm = TensorRef(prefix + "attn_norm.weight");
    layer.feed_forward_norm = TensorRef(prefix + "post_attention_norm.weight");
    if (model.recurrent[i]) {
      layer.mixer = delta_net(model, prefix, checkpoint);
    } else {
      layer.mixer = gated_attention(model, prefix, checkpoint);
    }
    layer.feed_forward = feed_forward(model, i, prefix, checkpoint);
  }
  return spec;
}

}  // namespace

const Architecture kQwen3NextGguf{"", "", "qwen3next", nullptr, read_gguf};
const Architecture kQwen35Gguf{"", "", "qwen35", nullptr, read_gguf};
const Architecture kQwen35MoeGguf{"", "", "qwen35moe", nullptr, read_gguf};

}  // namespace shoal::model
