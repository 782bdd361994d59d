#include "model/architectures/qwen_hybrid.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

constexpr uint64_t kMaxTaps = 256;

TensorRef part_of(const std::string& name, std::vector<uint64_t> shape, const engine::Runs& rows) {
  TensorRef ref(name);
  ref.shape = std::move(shape);
  ref.rows = rows;
  return ref;
}

Result<std::vector<bool>> read_recurrent(Fields& fields, uint32_t layers) {
  constexpr uint32_t kInterval = 4;
  SHOAL_TRY(const std::vector<std::string> types, fields.get_texts("layer_types"));
  SHOAL_TRY(const auto interval, fields.get_count("full_attention_interval", limits::kMaxWidth));
  std::vector<bool> recurrent(layers);
  for (uint32_t i = 0; i < layers; ++i) recurrent[i] = (i + 1) % interval.value_or(kInterval) != 0;
  if (types.empty()) return recurrent;
  if (types.size() != layers)
    return fields.wrong_value("layer_types", fmt::format("a list of {} types", layers));
  for (uint32_t i = 0; i < layers; ++i) {
    recurrent[i] = types[i] == "linear_attention" || types[i] == "mamba";
    if (!recurrent[i] && types[i] != "full_attention" && types[i] != "attention")
      return fields.not_supported("layer_types");
  }
  return recurrent;
}

Result<engine::DeltaNetOp> read_delta(Fields& fields) {
  engine::DeltaNetOp delta;
  SHOAL_TRY(const auto key_heads, fields.get_count("linear_num_key_heads", limits::kMaxHeads));
  SHOAL_TRY(const auto value_heads, fields.get_count("linear_num_value_heads", limits::kMaxHeads));
  SHOAL_TRY(const auto key_dim, fields.get_count("linear_key_head_dim", limits::kMaxHeadDim));
  SHOAL_TRY(const auto value_dim, fields.get_count("linear_value_head_dim", limits::kMaxHeadDim));
  SHOAL_TRY(const auto kernel, fields.get_count("linear_conv_kernel_dim", kMaxTaps));
  delta.key_heads = key_heads.value_or(16);
  delta.value_heads = value_heads.value_or(32);
  delta.key_dim = key_dim.value_or(128);
  delta.value_dim = value_dim.value_or(128);
  delta.kernel = kernel.value_or(4);
  if (delta.value_heads % delta.key_heads != 0) {
    return fields.wrong_value("linear_num_value_heads",
                              fmt::format("a multiple of 'linear_num_key_heads' {}", delta.key_heads));
  }
  return delta;
}

// The taps of the convolution: [channels, 1, kernel], and [channels, kernel, 1] as MLX writes them.
TensorRef taps_of(const std::string& name, const engine::DeltaNetOp& delta, const Checkpoint& checkpoint) {
  TensorRef taps(name);
  const std::vector<uint64_t> turned = {delta.channels(), delta.kernel, 1};
  const formats::TensorInfo* tensor = checkpoint.find(name);
  taps.shape = {delta.channels(), 1, delta.kernel};
  if (tensor && tensor->shape == turned) taps.shape = turned;
  return taps;
}

DeltaNetSpec delta_net(const HybridModel& model, const std::string& prefix, const Checkpoint& checkpoint,
                       NameProjections name_projections) {
  DeltaNetSpec delta;
  delta.op = model.delta;
  name_projections(delta, prefix, model.sizes.hidden_size);
  delta.taps = {taps_of(prefix + "conv1d.weight", model.delta, checkpoint)};
  delta.decay_bias = TensorRef(prefix + "dt_bias");
  delta.decay = TensorRef(prefix + "A_log");
  delta.decay_map = engine::VectorMap::negative_exponential;
  delta.norm = TensorRef(prefix + "norm.weight");
  delta.output = TensorRef(prefix + "out_proj.weight");
  return delta;
}

AttentionSpec gated_attention(const HybridModel& model, const std::string& prefix) {
  AttentionSpec attention = make_attention(model.sizes, model.rope);
  const std::string own = prefix + "self_attn.";
  name_attention(attention, prefix, model.attention_bias, model.attention_bias);
  name_gated_query(attention, own + "q_proj", model.sizes.hidden_size);
  attention.query_norm = TensorRef(own + "q_norm.weight");
  attention.key_norm = TensorRef(own + "k_norm.weight");
  return attention;
}

FeedForwardSpec feed_forward(const HybridModel& model, uint32_t layer, const std::string& prefix,
                             const Checkpoint& checkpoint) {
  if (!model.mixture[layer]) return dense_feed_forward(prefix, model.dense_width, model.activation);
  MixtureSpec mixture;
  mixture.router_op = model.router;
  mixture.width = model.expert_width;
  mixture.activation = model.activation;
  mixture.router = TensorRef(prefix + "gate.weight");
  name_experts(mixture, prefix, model.sizes.hidden_size, checkpoint);
  if (model.shared_width != 0) {
    mixture.shared = dense_feed_forward(prefix + "shared_expert.", model.shared_width, model.activation);
    mixture.shared_gate = TensorRef(prefix + "shared_expert_gate.weight");
  }
  return mixture;
}

// MLX stores the norms with the 1 added, and its taps show that it wrote the file.
bool has_whole_norms(const DecoderSpec& spec) {
  for (const LayerSpec& layer : spec.layers) {
    const auto* delta = std::get_if<DeltaNetSpec>(&layer.mixer);
    if (delta && delta->op.kernel != 1) return delta->taps.front().shape.back() == 1;
  }
  return false;
}

}  // namespace

Result<HybridModel> read_hybrid(Fields& fields, const HybridDefaults& defaults) {
  HybridModel model;
  SHOAL_TRY(model.sizes, read_sizes(fields, defaults.sizes));
  SHOAL_TRY(model.rope, read_rope(fields, {.head_dim = model.sizes.head_dim,
                                           .context_tokens = model.sizes.context_tokens,
                                           .partial_factor = 0.25}));
  SHOAL_TRY(model.attention_bias, fields.get_flag("attention_bias", false));
  SHOAL_TRY_VOID(fields.expect_flag("attn_output_gate", true));
  SHOAL_TRY(model.activation, read_activation(fields));
  if (model.activation.kind != engine::Activation::Kind::silu)  // the convolution's too
    return fields.not_supported("hidden_act");
  SHOAL_TRY(model.delta, read_delta(fields));
  SHOAL_TRY(model.recurrent, read_recurrent(fields, model.sizes.layers));
  SHOAL_TRY(const auto width, fields.get_count("intermediate_size", limits::kMaxWidth));
  model.dense_width = width.value_or(defaults.dense_width);
  model.mixture.resize(model.sizes.layers);
  return model;
}

Result<> read_hybrid_mixture(Fields& fields, const HybridMixtureDefaults& defaults, HybridModel& model) {
  SHOAL_TRY(const uint32_t experts, fields.get_whole("num_experts", limits::kMaxExperts, defaults.experts));
  SHOAL_TRY(const auto used, fields.get_count("num_experts_per_tok", limits::kMaxExperts));
  SHOAL_TRY(const auto width, fields.get_count("moe_intermediate_size", limits::kMaxWidth));
  SHOAL_TRY(model.shared_width, fields.get_whole("shared_expert_intermediate_size", limits::kMaxWidth, 512));
  model.expert_width = width.value_or(512);
  model.router = {.score = engine::RouterOp::Score::softmax,
                  .expert_count = experts,
                  .used = used.value_or(defaults.used),
                  .normalise = true};
  if (experts != 0 && model.router.used > experts)
    return fields.wrong_value("num_experts_per_tok", fmt::format("at most {}", experts));
  model.mixture.assign(model.sizes.layers, experts != 0);
  return {};
}

DecoderSpec hybrid_spec(const std::string& architecture, const HybridModel& model, bool tied,
                        const std::string& prefix, const Checkpoint& checkpoint,
                        NameProjections name_projections) {
  DecoderSpec spec = make_spec(architecture, model.sizes);
  name_model(spec, tied, prefix);
  for (uint32_t i = 0; i < model.sizes.layers; ++i) {
    const std::string own = layer_prefix(i, prefix);
    LayerSpec& layer = spec.layers[i];
    name_layer_norms(layer, own);
    if (model.recurrent[i]) {
      layer.mixer = delta_net(model, own + "linear_attn.", checkpoint, name_projections);
    } else {
      layer.mixer = gated_attention(model, own);
    }
    layer.feed_forward = feed_forward(model, i, own + "mlp.", checkpoint);
  }
  spec.norm_map = has_whole_norms(spec) ? engine::VectorMap::none : engine::VectorMap::plus_one;
  for (const char* beside : {"mtp.", "model.mtp.", "language_model.mtp.", "model.visual.", "visual."})
    spec.ignored_prefixes.emplace_back(beside);
  for (std::string& beside : multimodal_prefixes()) spec.ignored_prefixes.push_back(std::move(beside));
  return spec;
}

void name_gated_query(AttentionSpec& attention, const std::string& name, uint64_t hidden_size) {
  const uint32_t size = attention.head_dim, heads = attention.query_heads;
  const engine::Runs queries{.first = 0, .length = size, .stride = 2 * size, .count = heads};
  const engine::Runs gates{.first = size, .length = size, .stride = 2 * size, .count = heads};
  const uint64_t rows = uint64_t{2} * size * heads;
  attention.query = part_of(name + ".weight", {rows, hidden_size}, queries);
  attention.gate = part_of(name + ".weight", {rows, hidden_size}, gates);
  if (attention.query_bias.empty()) return;
  attention.query_bias = part_of(name + ".bias", {rows}, queries);
  attention.gate_bias = part_of(name + ".bias", {rows}, gates);
}

void name_plain_channels(DeltaNetSpec& delta, const std::string& name, uint64_t hidden_size) {
  const engine::DeltaNetOp& op = delta.op;
  const uint32_t keys = op.key_heads * op.key_dim;
  const std::vector<uint64_t> shape = {op.channels(), hidden_size};
  delta.query = part_of(name, shape, {.first = 0, .length = keys});
  delta.key = part_of(name, shape, {.first = keys, .length = keys});
  delta.value = part_of(name, shape, {.first = 2 * keys, .length = op.value_heads * op.value_dim});
}

void name_grouped_channels(DeltaNetSpec& delta, const std::string& name, uint64_t hidden_size) {
  const engine::DeltaNetOp& op = delta.op;
  const uint32_t heads = op.key_heads, key = op.key_dim;
  const uint32_t values = op.value_heads / heads * op.value_dim;
  const uint32_t group = 2 * key + 2 * values;
  const std::vector<uint64_t> shape = {uint64_t{heads} * group, hidden_size};
  const auto runs = [&](uint32_t first, uint32_t length) {
    return engine::Runs{.first = first, .length = length, .stride = group, .count = heads};
  };
  delta.query = part_of(name, shape, runs(0, key));
  delta.key = part_of(name, shape, runs(key, key));
  delta.value = part_of(name, shape, runs(2 * key, values));
  delta.gate = part_of(name, shape, runs(2 * key + values, values));
}

void name_grouped_rates(DeltaNetSpec& delta, const std::string& name, uint64_t hidden_size) {
  const uint32_t heads = delta.op.key_heads, each = delta.op.value_heads / heads;
  const std::vector<uint64_t> shape = {uint64_t{2} * delta.op.value_heads, hidden_size};
  const auto runs = [&](uint32_t first) {
    return engine::Runs{.first = first, .length = each, .stride = 2 * each, .count = heads};
  };
  delta.rate_input = part_of(name, shape, runs(0));
  delta.decay_input = part_of(name, shape, runs(each));
}

}  // namespace shoal::model
