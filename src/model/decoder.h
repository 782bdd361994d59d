// Runs a stage of a decoder (pre-norm layers of grouped-query attention and a gated feed-forward) on any
// engine: the maths of every llama-like model, once, as a template over engine::Backend. What differs between
// models is in the DecoderSpec; what differs between engines is in the Backend; a stage without embedding or
// head is this same code.
//
// Loads only the tensors of its StageRange. One thread drives a Decoder; it holds a pointer to its backend.
#pragma once

#include <array>
#include <fmt/format.h>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/backend.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

using Progress = std::function<void(float fraction)>;  // of loading, in [0, 1]

template <engine::Backend B>
class Decoder {
 public:
  using Tensor = typename B::Tensor;
  using Weight = typename B::Weight;

  static Result<Decoder> load(B& backend, const formats::Checkpoint& checkpoint, const DecoderSpec& spec,
                              const engine::StageRange& stage, const Progress& progress) {
    Decoder decoder(backend, spec, stage);
    SHOAL_TRY_VOID(decoder.load_weights(checkpoint, progress));
    return decoder;
  }

  // The step must be valid (decoder_engine.h checks). Returns [rows, D] or, when the stage heads, logits
  // [output_rows, V]; valid until the next call.
  Result<std::span<const float>> run(const engine::StepView& step, std::span<const float> hidden_in) {
    B& b = *backend_;
    b.begin(step);
    Tensor x = stage_.embeds ? b.embed(embedding_, step) : b.input(step, hidden_in);  // [T, D]
    for (uint32_t index = 0; index < layers_.size(); ++index) {
      const LayerSpec& layer = spec_.layers[stage_.first_layer + index];
      const Layer& weights = layers_[index];
      Tensor normed = b.rms_norm(x, weights.attention_norm, spec_.norm_epsilon);
      Tensor heads = attention(normed, step, index, layer.attention, weights);  // [T, H*d]
      if (stage_.heads && index + 1 == layers_.size()) {
        // Keys and values of every row are in the cache now; from here on only the wanted rows matter.
        if (step.output_rows.empty()) return std::span<const float>();
        x = b.rows(x, step.output_rows);
        heads = b.rows(heads, step.output_rows);
      }
      Tensor attended = biased(b.all_reduce(b.linear(heads, weights.output)), weights.output_bias);
      std::tie(x, normed) = b.add_rms_norm(x, attended, weights.feed_forward_norm, spec_.norm_epsilon);
      x = b.add(x, feed_forward(normed, layer.feed_forward, weights));
    }
    if (!stage_.heads) return b.output(x);
    x = b.rms_norm(x, final_norm_, spec_.norm_epsilon);
    return b.output(b.linear(x, head_));
  }

 private:
  // T rows, D hidden, H query heads, G kv heads, d head size, F feed-forward width; a rank's share of H, G
  // and F.
  struct Layer {
    Weight attention_norm;             // [D]
    Weight query, key, value, output;  // [H*d, D] [G*d, D] [G*d, D] [D, H*d]
    std::optional<Weight> query_bias, key_bias, value_bias, output_bias;
    std::optional<Weight> query_norm, key_norm;  // [d]
    Weight feed_forward_norm;                    // [D]
    Weight gate, up, down;                       // [F, D] [F, D] [D, F]
    std::optional<Weight> gate_bias, up_bias, down_bias;
  };

  Decoder(B& backend, const DecoderSpec& spec, const engine::StageRange& stage)
      : backend_(&backend), spec_(spec), stage_(stage) {}

  // [T, H*d], before the output projection.
  Tensor attention(const Tensor& x, const engine::StepView& step, uint32_t index, const AttentionSpec& spec,
                   const Layer& weights) {
    B& b = *backend_;
    const engine::RopeOp rope{spec.rope.pairs, spec.rope.dimensions, spec.rope.magnitude,
                              spec.rope.inverse_frequencies};
    const Weight* const projections[] = {&weights.query, &weights.key, &weights.value};
    std::vector<Tensor> qkv = b.linears(x, projections);
    Tensor query = biased(qkv[0], weights.query_bias);  // [T, H*d]
    Tensor key = biased(qkv[1], weights.key_bias);      // [T, G*d]
    Tensor value = biased(qkv[2], weights.value_bias);
    if (weights.query_norm)
      query = b.head_norm(query, *weights.query_norm, spec.head_dim, spec_.norm_epsilon);
    if (weights.key_norm) key = b.head_norm(key, *weights.key_norm, spec.head_dim, spec_.norm_epsilon);
    query = b.rope(query, step, rope, spec.head_dim);
    key = b.rope(key, step, rope, spec.head_dim);
    const engine::AttentionOp op{.layer = index,
                                 .query_heads = spec.query_heads,
                                 .kv_heads = spec.kv_heads,
                                 .head_dim = spec.head_dim,
                                 .scale = spec.scale,
                                 .window = spec.window};
    return b.attend(query, key, value, step, op, nullptr);
  }

  Tensor feed_forward(const Tensor& x, const FeedForwardSpec& spec, const Layer& weights) {
    B& b = *backend_;
    const Weight* const projections[] = {&weights.gate, &weights.up};
    std::vector<Tensor> both = b.linears(x, projections);  // [T, F] each
    Tensor gate = biased(both[0], weights.gate_bias);
    Tensor up = biased(both[1], weights.up_bias);
    Tensor inner = b.activate_multiply(gate, up, spec.activation);
    return biased(b.all_reduce(b.linear(inner, weights.down)), weights.down_bias);
  }

  Tensor biased(const Tensor& x, const std::optional<Weight>& bias) {
    return bias ? backend_->add_bias(x, *bias) : x;
  }

  Result<> load_weights(const formats::Checkpoint& checkpoint, const Progress& progress) {
    const uint32_t count = stage_.end_layer - stage_.first_layer;
    const auto report = [&](uint32_t layers_done) {
      if (progress) progress(static_cast<float>(layers_done) / static_cast<float>(count + 1));
    };
    if (stage_.embeds) {
      SHOAL_TRY(const formats::TensorInfo* info, find(checkpoint, spec_.embedding));
      SHOAL_TRY(embedding_, backend_->load_embedding(checkpoint, *info));
    }
    for (uint32_t index = 0; index < count; ++index) {
      report(index);
      SHOAL_TRY(Layer layer, load_layer(checkpoint, spec_.layers[stage_.first_layer + index].tensors));
      layers_.push_back(std::move(layer));
    }
    report(count);
    if (stage_.heads) {
      SHOAL_TRY_VOID(load_vector(checkpoint, spec_.final_norm, final_norm_));
      SHOAL_TRY_VOID(load_matrix(checkpoint, spec_.head, engine::Cut::none, head_));
    }
    if (progress) progress(1);
    return {};
  }

  Result<Layer> load_layer(const formats::Checkpoint& checkpoint, const LayerTensors& names) {
    using engine::Cut;
    Layer layer;
    const std::pair<const std::string&, Weight&> vectors[] = {
        {names.attention_norm, layer.attention_norm}, {names.feed_forward_norm, layer.feed_forward_norm}};
    for (const auto& [name, weight] : vectors) SHOAL_TRY_VOID(load_vector(checkpoint, name, weight));
    const std::tuple<const std::string&, Cut, Weight&> matrices[] = {
        {names.query, Cut::rows, layer.query}, {names.key, Cut::rows, layer.key},
        {names.value, Cut::rows, layer.value}, {names.output, Cut::columns, layer.output},
        {names.gate, Cut::rows, layer.gate},   {names.up, Cut::rows, layer.up},
        {names.down, Cut::columns, layer.down}};
    for (const auto& [name, cut, weight] : matrices)
      SHOAL_TRY_VOID(load_matrix(checkpoint, name, cut, weight));
    const std::pair<const std::string&, std::optional<Weight>&> optional_vectors[] = {
        {names.query_bias, layer.query_bias}, {names.key_bias, layer.key_bias},
        {names.value_bias, layer.value_bias}, {names.output_bias, layer.output_bias},
        {names.query_norm, layer.query_norm}, {names.key_norm, layer.key_norm},
        {names.gate_bias, layer.gate_bias},   {names.up_bias, layer.up_bias},
        {names.down_bias, layer.down_bias}};
    for (const auto& [name, weight] : optional_vectors)
      if (!name.empty()) SHOAL_TRY_VOID(load_vector(checkpoint, name, weight.emplace()));
    return layer;
  }

  Result<> load_vector(const formats::Checkpoint& checkpoint, const std::string& name, Weight& weight) {
    SHOAL_TRY(const formats::TensorInfo* info, find(checkpoint, name));
    SHOAL_TRY(weight, backend_->load_vector(checkpoint, std::array{engine::VectorSource{.tensor = info}}));
    return {};
  }

  Result<> load_matrix(const formats::Checkpoint& checkpoint, const std::string& name, engine::Cut cut,
                       Weight& weight) {
    SHOAL_TRY(const formats::TensorInfo* info, find(checkpoint, name));
    SHOAL_TRY(weight, backend_->load_matrix(checkpoint, {.tensor = info}, cut));
    return {};
  }

  static Result<const formats::TensorInfo*> find(const formats::Checkpoint& checkpoint,
                                                 const std::string& name) {
    const formats::TensorInfo* info = checkpoint.find(name);
    if (info == nullptr) return fail(ErrorCode::malformed, fmt::format("tensor '{}' is missing", name));
    return info;
  }

  B* backend_;
  DecoderSpec spec_;
  engine::StageRange stage_;
  Weight embedding_;           // [V, D], when the stage embeds
  std::vector<Layer> layers_;  // of this stage
  Weight final_norm_, head_;   // [D] and [V, D], when the stage heads
};

}  // namespace shoal::model
