// The GGUF side of model/config.h: metadata keys as llama.cpp's converters write them.
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/limits.h"
#include "formats/dequantise.h"
#include "formats/layout.h"
#include "model/config.h"
#include "model/rope.h"

namespace shoal::model {
namespace {

using formats::GgufMetadata;

// Metadata under one architecture's prefix.
class Keys {
 public:
  Keys(const GgufMetadata& metadata, std::string_view architecture)
      : metadata_(metadata), architecture_(architecture) {}

  std::string name(std::string_view key) const { return fmt::format("{}.{}", architecture_, key); }

  Result<std::optional<uint32_t>> get_count(std::string_view key, uint64_t maximum) const {
    SHOAL_TRY(const auto count, metadata_.get_integer(name(key), 1, static_cast<int64_t>(maximum)));
    return count ? std::optional(static_cast<uint32_t>(*count)) : std::nullopt;
  }
  Result<uint32_t> require_count(std::string_view key, uint64_t maximum) const {
    SHOAL_TRY(const int64_t count, metadata_.require_integer(name(key), 1, static_cast<int64_t>(maximum)));
    return static_cast<uint32_t>(count);
  }
  Result<std::optional<double>> get_positive(std::string_view key) const {
    SHOAL_TRY(const auto number, metadata_.get_number(name(key)));
    if (number && (!std::isfinite(*number) || *number <= 0)) {
      return fail(ErrorCode::malformed,
                  fmt::format("'{}' is {}, but must be a number over 0", name(key), *number));
    }
    return number;
  }
  const GgufMetadata& metadata() const { return metadata_; }

 private:
  const GgufMetadata& metadata_;
  std::string_view architecture_;
};

std::unexpected<Error> not_supported(std::string_view key, std::string_view value) {
  return fail(ErrorCode::unsupported, fmt::format("'{}' is {}, which is not supported", key, value));
}

// Keys of other families that change the maths; only the neutral value (or 0) is taken.
struct NeutralKey {
  std::string_view key;
  double neutral = 0;
};
constexpr auto kForeignKeys = std::to_array<NeutralKey>({
    {"expert_count"},
    {"expert_used_count"},
    {"attention.sliding_window"},
    {"attention.chunk_size"},
    {"attention.scale"},
    {"attention.clamp_kqv"},
    {"attention.max_alibi_bias"},
    {"attn_logit_softcapping"},
    {"final_logit_softcapping"},
    {"logit_scale", 1},
    {"residual_scale", 1},
    {"embedding_scale", 1},
    {"rope.scaling.attn_factor", 1},
    {"rope.scaling.yarn_log_multiplier"},
    {"no_rope_layer_step"},
});

Result<> refuse_unsupported(const Keys& keys) {
  for (const auto& [key, neutral] : kForeignKeys) {
    SHOAL_TRY(const auto value, keys.metadata().get_number(keys.name(key)));
    if (value && *value != 0 && *value != neutral)
      return not_supported(keys.name(key), fmt::format("{}", *value));
  }
  SHOAL_TRY(const auto causal, keys.metadata().get_bool(keys.name("attention.causal")));
  if (!causal.value_or(true)) return not_supported(keys.name("attention.causal"), "false");
  SHOAL_TRY(const auto parallel, keys.metadata().get_bool(keys.name("use_parallel_residual")));
  if (parallel.value_or(false)) return not_supported(keys.name("use_parallel_residual"), "true");
  return {};
}

Result<RopeScaling> read_scaling(const Keys& keys) {
  RopeScaling scaling;
  SHOAL_TRY(const auto old_factor,
            keys.get_positive("rope.scale_linear"));  // of files older than rope.scaling.*
  SHOAL_TRY(const auto kind, keys.metadata().get_string(keys.name("rope.scaling.type")));
  SHOAL_TRY(const auto factor, keys.get_positive("rope.scaling.factor"));
  if (kind && *kind != "none" && *kind != "linear") {
    return not_supported(keys.name("rope.scaling.type"), formats::quote(*kind));
  }
  if (kind == "none") return scaling;
  scaling.factor = factor.value_or(old_factor.value_or(1));
  scaling.kind = RopeScaling::Kind::linear;
  return scaling;
}

// Divisors of the frequencies: how llama3 scaling arrives in a GGUF. Empty when there are none.
Result<std::vector<float>> read_divisors(const formats::Checkpoint& checkpoint, uint32_t dimensions) {
  constexpr std::string_view kName = "rope_freqs.weight";
  const formats::TensorInfo* tensor = checkpoint.find(kName);
  if (!tensor) return std::vector<float>{};
  if (tensor->shape != std::vector<uint64_t>{dimensions / 2}) {
    return fail(ErrorCode::malformed, fmt::format("tensor '{}' has the shape [{}], expected [{}]", kName,
                                                  fmt::join(tensor->shape, ", "), dimensions / 2));
  }
  std::vector<float> divisors(dimensions / 2);
  SHOAL_TRY_VOID(formats::dequantise(tensor->type, checkpoint.bytes(*tensor), divisors));
  for (float divisor : divisors) {
    if (std::isfinite(divisor) && divisor > 0) continue;
    return fail(ErrorCode::malformed, fmt::format("tensor '{}' divides a frequency by {}", kName, divisor));
  }
  return divisors;
}

Result<RopeSpec> read_rope(const formats::Checkpoint& checkpoint, const Keys& keys, uint32_t head_dim,
                           engine::RopePairs pairs) {
  constexpr double kDefaultTheta = 10000;
  RopeSpec rope;
  rope.pairs = pairs;
  SHOAL_TRY(const auto dimensions, keys.get_count("rope.dimension_count", limits::kMaxHeadDim));
  rope.dimensions = dimensions.value_or(head_dim);
  if (rope.dimensions % 2 != 0 || rope.dimensions > head_dim) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is {}, but must be even and at most the head size {}",
                            keys.name("rope.dimension_count"), rope.dimensions, head_dim));
  }
  SHOAL_TRY(const auto theta, keys.get_positive("rope.freq_base"));
  SHOAL_TRY(const RopeScaling scaling, read_scaling(keys));
  SHOAL_TRY(const auto divisors, read_divisors(checkpoint, rope.dimensions));
  SHOAL_TRY(rope.inverse_frequencies,
            inverse_frequencies(rope.dimensions, theta.value_or(kDefaultTheta), scaling, divisors));
  return rope;
}

Result<uint32_t> read_head_dim(const Keys& keys, const DenseConfig& sizes) {
  SHOAL_TRY(const auto key_length, keys.get_count("attention.key_length", limits::kMaxHeadDim));
  SHOAL_TRY(const auto value_length, keys.get_count("attention.value_length", limits::kMaxHeadDim));
  const uint32_t split =
      sizes.hidden_size % sizes.query_heads == 0 ? sizes.hidden_size / sizes.query_heads : 0;
  const uint32_t head_dim = key_length.value_or(split);
  if (head_dim == 0 || head_dim > limits::kMaxHeadDim) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is missing, and {} values over {} heads give no head size up to {}",
                            keys.name("attention.key_length"), sizes.hidden_size, sizes.query_heads,
                            limits::kMaxHeadDim));
  }
  if (value_length && *value_length != head_dim) {
    return not_supported(keys.name("attention.value_length"),
                         fmt::format("{} beside keys of {}", *value_length, head_dim));
  }
  return head_dim;
}

}  // namespace

Result<DenseConfig> read_dense_metadata(const formats::Checkpoint& checkpoint, std::string_view architecture,
                                        engine::RopePairs pairs) {
  const Keys keys(*checkpoint.gguf(), architecture);
  SHOAL_TRY_VOID(refuse_unsupported(keys));
  DenseConfig sizes;
  SHOAL_TRY(sizes.layers, keys.require_count("block_count", limits::kMaxLayers));
  SHOAL_TRY(sizes.hidden_size, keys.require_count("embedding_length", limits::kMaxWidth));
  SHOAL_TRY(sizes.feed_forward_width, keys.require_count("feed_forward_length", limits::kMaxWidth));
  SHOAL_TRY(sizes.query_heads, keys.require_count("attention.head_count", limits::kMaxHeads));
  SHOAL_TRY(const auto kv_heads, keys.get_count("attention.head_count_kv", limits::kMaxHeads));
  sizes.kv_heads = kv_heads.value_or(sizes.query_heads);
  if (sizes.query_heads % sizes.kv_heads != 0) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is {}, not a multiple of '{}' {}", keys.name("attention.head_count"),
                            sizes.query_heads, keys.name("attention.head_count_kv"), sizes.kv_heads));
  }
  SHOAL_TRY(sizes.head_dim, read_head_dim(keys, sizes));
  SHOAL_TRY(sizes.context_tokens, keys.require_count("context_length", limits::kMaxContextTokens));
  SHOAL_TRY(const auto epsilon, keys.get_positive("attention.layer_norm_rms_epsilon"));
  if (!epsilon) {
    return fail(ErrorCode::malformed,
                fmt::format("'{}' is missing", keys.name("attention.layer_norm_rms_epsilon")));
  }
  sizes.norm_epsilon = static_cast<float>(*epsilon);
  SHOAL_TRY(sizes.rope, read_rope(checkpoint, keys, sizes.head_dim, pairs));
  return sizes;
}

}  // namespace shoal::model
