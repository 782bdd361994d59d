// The GGUF side of model/config.h: metadata keys as llama.cpp's converters write them.
#include <fmt/format.h>

#include "base/limits.h"
#include "model/config.h"
#include "model/rope_config.h"

namespace shoal::model {
namespace {

Result<uint32_t> read_head_dim(Metadata& metadata, const Sizes& sizes) {
  SHOAL_TRY(const auto key_length, metadata.get_count("attention.key_length", limits::kMaxHeadDim));
  SHOAL_TRY(const auto value_length, metadata.get_count("attention.value_length", limits::kMaxHeadDim));
  const uint32_t split =
      sizes.hidden_size % sizes.query_heads == 0 ? sizes.hidden_size / sizes.query_heads : 0;
  const uint32_t head_dim = key_length.value_or(split);
  if (head_dim == 0 || head_dim > limits::kMaxHeadDim) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is missing, and {} values over {} heads give no head size up to {}",
                            metadata.name("attention.key_length"), sizes.hidden_size, sizes.query_heads,
                            limits::kMaxHeadDim));
  }
  if (value_length && *value_length != head_dim) {
    return metadata.not_supported("attention.value_length",
                                  fmt::format("{} beside keys of {}", *value_length, head_dim));
  }
  return head_dim;
}

}  // namespace

Result<Sizes> read_sizes(Metadata& metadata, std::optional<double> absent_epsilon) {
  Sizes sizes;
  SHOAL_TRY(sizes.layers, metadata.require_count("block_count", limits::kMaxLayers));
  SHOAL_TRY(sizes.hidden_size, metadata.require_count("embedding_length", limits::kMaxWidth));
  SHOAL_TRY(sizes.query_heads, metadata.require_count("attention.head_count", limits::kMaxHeads));
  SHOAL_TRY(const auto kv_heads, metadata.get_count("attention.head_count_kv", limits::kMaxHeads));
  sizes.kv_heads = kv_heads.value_or(sizes.query_heads);
  if (sizes.query_heads % sizes.kv_heads != 0) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is {}, not a multiple of '{}' {}", metadata.name("attention.head_count"),
                            sizes.query_heads, metadata.name("attention.head_count_kv"), sizes.kv_heads));
  }
  SHOAL_TRY(sizes.head_dim, read_head_dim(metadata, sizes));
  SHOAL_TRY(sizes.context_tokens, metadata.require_count("context_length", limits::kMaxContextTokens));
  constexpr std::string_view kEpsilon = "attention.layer_norm_rms_epsilon";
  SHOAL_TRY(auto epsilon, metadata.get_positive(kEpsilon));
  if (!epsilon) epsilon = absent_epsilon;
  if (!epsilon) return metadata.missing(kEpsilon);
  sizes.norm_epsilon = static_cast<float>(*epsilon);
  return sizes;
}

Result<uint32_t> read_main_layers(Metadata& metadata, uint32_t block_count,
                                  std::vector<std::string>& ignored) {
  constexpr std::string_view kKey = "nextn_predict_layers";
  SHOAL_TRY(const uint32_t predictors, metadata.get_whole(kKey, limits::kMaxLayers, 0));
  if (predictors >= block_count) {
    return fail(ErrorCode::malformed, fmt::format("'{}' is {}, but there are {} blocks in all",
                                                  metadata.name(kKey), predictors, block_count));
  }
  const uint32_t layers = block_count - predictors;
  for (uint32_t block = layers; block < block_count; ++block) ignored.push_back(gguf_layer_prefix(block));
  return layers;
}

Result<DecoderSpec> read_plain_gguf(Metadata& metadata) {
  SHOAL_TRY(const Sizes sizes, read_sizes(metadata));
  SHOAL_TRY(const RopeSpec rope,
            read_rope(metadata, {.head_dim = sizes.head_dim, .context_tokens = sizes.context_tokens}));
  SHOAL_TRY(const uint32_t width, metadata.require_count("feed_forward_length", limits::kMaxWidth));
  DecoderSpec spec = make_spec(metadata.architecture(), sizes);
  name_gguf_model(spec, metadata.checkpoint());
  for (uint32_t i = 0; i < sizes.layers; ++i) {
    const std::string prefix = gguf_layer_prefix(i);
    LayerSpec& layer = spec.layers[i];
    name_gguf_layer_norms(layer, prefix);
    AttentionSpec attention = make_attention(sizes, rope);
    name_gguf_attention(attention, prefix, metadata.checkpoint());
    layer.mixer = std::move(attention);
    layer.feed_forward = gguf_dense_feed_forward(prefix, width, {}, metadata.checkpoint());
  }
  return spec;
}

}  // namespace shoal::model
