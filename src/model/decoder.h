// Runs a stage of a decoder on any engine: pre-norm layers of a mixer (attention of some kind) and a
// feed-forward, once, as a template over engine::Backend. What differs between models is in the DecoderSpec
// and in the kinds of layer (model/layers/); what differs between engines is in the Backend; a stage without
// embedding or head is this same code.
//
// Loads only the tensors of its StageRange. One thread drives a Decoder; it holds a pointer to its backend.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/backend.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"
#include "model/layers/attention.h"
#include "model/layers/delta_net.h"
#include "model/layers/feed_forward.h"
#include "model/layers/latent_attention.h"

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
    SHOAL_TRY_VOID(decoder.load_weights(Loader<B>(backend, checkpoint), progress));
    return decoder;
  }

  // The step must be valid (decoder_engine.h checks). Returns [rows, D] or, when the stage heads, logits
  // [output_rows, V]; valid until the next call.
  Result<std::span<const float>> run(const engine::StepView& step, std::span<const float> hidden_in) {
    B& b = *backend_;
    const float epsilon = spec_->norm_epsilon;
    b.begin(step);
    Tensor x = stage_.embeds ? embed(step) : b.input(step, hidden_in);  // [T, D]
    for (uint32_t index = 0; index < layers_.size() && !b.failed(); ++index) {
      const Layer& layer = layers_[index];
      Tensor normed = b.rms_norm(x, layer.mixer_norm, epsilon);
      Tensor mixed =
          std::visit([&](const auto& mixer) { return mixer.mix(b, normed, step, index); }, layer.mixer);
      if (stage_.heads && index + 1 == layers_.size()) {
        // What later steps need of every row is in the cache now; from here on only the wanted rows matter.
        if (step.output_rows.empty()) return b.output(b.rows(x, step.output_rows));
        x = b.rows(x, step.output_rows);
        mixed = b.rows(mixed, step.output_rows);
      }
      Tensor added = std::visit([&](const auto& mixer) { return mixer.project(b, mixed); }, layer.mixer);
      if (layer.mixer_post_norm) added = b.rms_norm(added, *layer.mixer_post_norm, epsilon);
      std::tie(x, normed) = b.add_rms_norm(x, added, layer.feed_forward_norm, epsilon);
      added = std::visit([&](const auto& feed_forward) { return feed_forward.run(b, normed); },
                         layer.feed_forward);
      if (layer.feed_forward_post_norm) added = b.rms_norm(added, *layer.feed_forward_post_norm, epsilon);
      x = b.add(x, added);
    }
    if (!stage_.heads || b.failed()) return b.output(x);
    Tensor logits = b.linear(b.rms_norm(x, final_norm_, epsilon), head_);
    if (spec_->final_softcap != 0) logits = b.softcap(logits, spec_->final_softcap);
    if (!spec_->head_rows.empty()) logits = b.all_gather(logits, spec_->head_rows);
    return b.output(logits);
  }

 private:
  struct Layer {
    Weight mixer_norm, feed_forward_norm;                           // [D]
    std::optional<Weight> mixer_post_norm, feed_forward_post_norm;  // [D]
    std::variant<AttentionLayer<B>, LatentAttentionLayer<B>, DeltaNetLayer<B>, NothingLayer<B>> mixer;
    std::variant<DenseLayer<B>, MixtureLayer<B>, NothingLayer<B>> feed_forward;
  };

  Decoder(B& backend, const DecoderSpec& spec, const engine::StageRange& stage)
      : backend_(&backend), spec_(std::make_unique<DecoderSpec>(spec)), stage_(stage) {}

  Tensor embed(const engine::StepView& step) {
    Tensor x = backend_->embed(embedding_, step);
    return spec_->embedding_scale == 1 ? x : backend_->scale(x, spec_->embedding_scale);
  }

  Result<> load_weights(const Loader<B>& loader, const Progress& progress) {
    const uint32_t count = stage_.end_layer - stage_.first_layer;
    const auto report = [&](uint32_t layers_done) {
      if (progress) progress(static_cast<float>(layers_done) / static_cast<float>(count + 1));
    };
    if (stage_.embeds) SHOAL_TRY_VOID(loader.embedding(spec_->embedding, embedding_));
    layers_.reserve(count);
    for (uint32_t index = 0; index < count; ++index) {
      report(index);
      SHOAL_TRY(Layer layer, load_layer(loader, spec_->layers[stage_.first_layer + index]));
      layers_.push_back(std::move(layer));
    }
    report(count);
    if (stage_.heads) {
      SHOAL_TRY_VOID(loader.vector(spec_->final_norm, spec_->norm_map, final_norm_));
      SHOAL_TRY_VOID(loader.matrix(spec_->head, head_));
    }
    if (progress) progress(1);
    return {};
  }

  Result<Layer> load_layer(const Loader<B>& loader, const LayerSpec& spec) const {
    SHOAL_TRY(auto mixer, std::visit([&](const auto& kind) { return load_mixer(loader, kind); }, spec.mixer));
    SHOAL_TRY(auto feed_forward, std::visit([&](const auto& kind) { return load_feed_forward(loader, kind); },
                                            spec.feed_forward));
    Layer layer{.mixer_norm = {},
                .feed_forward_norm = {},
                .mixer_post_norm = {},
                .feed_forward_post_norm = {},
                .mixer = std::move(mixer),
                .feed_forward = std::move(feed_forward)};
    SHOAL_TRY_VOID(loader.vector(spec.mixer_norm, spec_->norm_map, layer.mixer_norm));
    SHOAL_TRY_VOID(loader.vector(spec.mixer_post_norm, spec_->norm_map, layer.mixer_post_norm));
    SHOAL_TRY_VOID(loader.vector(spec.feed_forward_norm, spec_->norm_map, layer.feed_forward_norm));
    SHOAL_TRY_VOID(loader.vector(spec.feed_forward_post_norm, spec_->norm_map, layer.feed_forward_post_norm));
    return layer;
  }

  using Mixer = decltype(Layer::mixer);
  using FeedForward = decltype(Layer::feed_forward);

  template <class Kind>
  Result<Mixer> load_mixer(const Loader<B>& loader, const Kind& spec) const {
    if (is_elsewhere(spec)) {
      if constexpr (std::is_same_v<Kind, DeltaNetSpec>) {
        return NothingLayer<B>::load(loader, {});
      } else {
        return NothingLayer<B>::load(loader, spec.output_bias);
      }
    }
    if constexpr (std::is_same_v<Kind, AttentionSpec>) {
      return AttentionLayer<B>::load(loader, *spec_, spec);
    } else if constexpr (std::is_same_v<Kind, LatentAttentionSpec>) {
      return LatentAttentionLayer<B>::load(loader, *spec_, spec);
    } else {
      return DeltaNetLayer<B>::load(loader, *spec_, spec);
    }
  }

  Result<FeedForward> load_feed_forward(const Loader<B>& loader, const DenseSpec& spec) const {
    if (is_elsewhere(spec)) return NothingLayer<B>::load(loader, spec.down_bias);
    return DenseLayer<B>::load(loader, spec);
  }
  Result<FeedForward> load_feed_forward(const Loader<B>& loader, const MixtureSpec& spec) const {
    if (is_elsewhere(spec)) return NothingLayer<B>::load(loader, {});
    return MixtureLayer<B>::load(loader, spec);
  }

  B* backend_;
  std::unique_ptr<const DecoderSpec> spec_;  // layers point into it
  engine::StageRange stage_;
  Weight embedding_;           // [V, D], when the stage embeds
  std::vector<Layer> layers_;  // of this stage
  Weight final_norm_, head_;   // [D] and [V, D], when the stage heads
};

}  // namespace shoal::model
