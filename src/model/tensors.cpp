#include "model/tensors.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>
#include <numeric>
#include <string_view>

#include "base/limits.h"
#include "formats/layout.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;
using formats::TensorInfo;
using Shape = std::vector<uint64_t>;

// Tensors that models carry and nobody needs: precomputed frequencies in old files.
constexpr std::string_view kFrequenciesSuffix = ".rotary_emb.inv_freq";

// Calls `visit` for the tensors of one kind of mixer or feed-forward.
class LayerVisitor {
 public:
  LayerVisitor(uint64_t hidden, const TensorVisitor& visit) : hidden_(hidden), visit_(visit) {}

  void operator()(const AttentionSpec& spec) const {
    if (is_elsewhere(spec)) return optional(spec.output_bias, {hidden_});
    const uint64_t queries = uint64_t{spec.query_heads} * spec.head_dim;
    const uint64_t keys = uint64_t{spec.kv_heads} * spec.head_dim;
    required(spec.query, {queries, hidden_});
    required(spec.key, {keys, hidden_});
    required(spec.value, {keys, hidden_});
    required(spec.output, {hidden_, queries});
    optional(spec.gate, {queries, hidden_});
    optional(spec.gate_bias, {queries});
    optional(spec.query_bias, {queries});
    optional(spec.key_bias, {keys});
    optional(spec.value_bias, {keys});
    optional(spec.output_bias, {hidden_});
    optional(spec.query_norm, {spec.head_dim});
    optional(spec.key_norm, {spec.head_dim});
    optional(spec.sinks, {spec.query_heads});
  }

  void operator()(const LatentAttentionSpec& spec) const {
    if (is_elsewhere(spec)) return optional(spec.output_bias, {hidden_});
    const uint64_t rotated = spec.rope.dimensions, rank = spec.latent_rank;
    const uint64_t queries = spec.heads * (spec.nope_dim + rotated);
    if (spec.query_rank == 0) {
      required(spec.query, {queries, hidden_});
    } else {
      required(spec.query_down, {spec.query_rank, hidden_});
      required(spec.query_down_norm, {spec.query_rank});
      required(spec.query_up, {queries, spec.query_rank});
    }
    required(spec.latent_down, {rank + rotated, hidden_});
    required(spec.latent_norm, {rank});
    for (const TensorRef& ref : spec.key_up) required(ref, {rank, spec.nope_dim});
    for (const TensorRef& ref : spec.value_up) required(ref, {spec.value_dim, rank});
    required(spec.output, {hidden_, uint64_t{spec.heads} * spec.value_dim});
    optional(spec.query_down_bias, {spec.query_rank});
    optional(spec.latent_down_bias, {rank + rotated});
    optional(spec.output_bias, {hidden_});
  }

  void operator()(const DeltaNetSpec& spec) const {
    if (is_elsewhere(spec)) return;
    const engine::DeltaNetOp& op = spec.op;
    const uint64_t keys = uint64_t{op.key_heads} * op.key_dim,
                   values = uint64_t{op.value_heads} * op.value_dim;
    required(spec.query, {keys, hidden_});
    required(spec.key, {keys, hidden_});
    required(spec.value, {values, hidden_});
    required(spec.gate, {values, hidden_});
    required(spec.decay_input, {op.value_heads, hidden_});
    required(spec.rate_input, {op.value_heads, hidden_});
    for (const TensorRef& ref : spec.taps) required(ref, {ref.part_rows.size(op.channels() * op.kernel)});
    required(spec.decay_bias, {op.value_heads});
    required(spec.decay, {op.value_heads});
    required(spec.norm, {op.value_dim});
    required(spec.output, {hidden_, values});
  }

  void operator()(const DenseSpec& spec) const {
    const uint64_t width = spec.width;
    if (is_elsewhere(spec)) return optional(spec.down_bias, {hidden_});
    required(spec.gate, {width, hidden_});
    required(spec.up, {width, hidden_});
    required(spec.down, {hidden_, width});
    optional(spec.gate_bias, {width});
    optional(spec.up_bias, {width});
    optional(spec.down_bias, {hidden_});
  }

  void operator()(const MixtureSpec& spec) const {
    if (is_elsewhere(spec)) return;
    const uint64_t experts = spec.router_op.expert_count, width = spec.width;
    required(spec.router, {experts, hidden_});
    optional(spec.router_bias, {experts});
    optional(spec.choice_bias, {experts});
    expert(spec.gate, {width, hidden_});
    expert(spec.up, {width, hidden_});
    expert(spec.down, {hidden_, width});
    expert(spec.gate_bias, {width});
    expert(spec.up_bias, {width});
    expert(spec.down_bias, {hidden_});
    if (spec.shared) (*this)(*spec.shared);
    optional(spec.shared_gate, {1, hidden_});
  }

  void required(const TensorRef& ref, const Shape& shape) const {
    visit_(ref, shape, TensorRole::every_token);
  }
  void optional(const TensorRef& ref, const Shape& shape) const {
    if (!ref.empty()) required(ref, shape);
  }

 private:
  void expert(const std::vector<TensorRef>& refs, const Shape& shape) const {
    for (const TensorRef& ref : refs) visit_(ref, shape, TensorRole::expert);
  }

  uint64_t hidden_;
  const TensorVisitor& visit_;
};

// The rows of the embedding, where the configuration leaves them open, and against the tokenizer in a GGUF.
Result<> settle_vocabulary(DecoderSpec& spec, const Checkpoint& checkpoint) {
  const TensorInfo* embedding = checkpoint.find(spec.embedding.name);
  if (!embedding)
    return fail(ErrorCode::malformed, fmt::format("tensor '{}' is missing", spec.embedding.name));
  const uint64_t rows = embedding->shape.empty() ? 0 : embedding->shape.front();
  if (rows > limits::kMaxVocabulary) {
    return fail(ErrorCode::limit_exceeded, fmt::format("tensor '{}' has {} rows, over the limit of {}",
                                                       embedding->name, rows, limits::kMaxVocabulary));
  }
  if (spec.vocabulary_size == 0) spec.vocabulary_size = static_cast<uint32_t>(rows);
  if (!checkpoint.gguf()) return {};
  const auto* tokens = checkpoint.gguf()->find_strings("tokenizer.ggml.tokens");
  if (!tokens || tokens->size() <= rows) return {};
  return fail(ErrorCode::malformed,
              fmt::format("tensor '{}' has {} rows for {} tokens in 'tokenizer.ggml.tokens'", embedding->name,
                          rows, tokens->size()));
}

bool is_ignored(const DecoderSpec& spec, std::string_view name) {
  return name.ends_with(kFrequenciesSuffix) ||
         std::ranges::any_of(spec.ignored_prefixes,
                             [&](const std::string& prefix) { return name.starts_with(prefix); });
}

// A tensor that nothing uses means maths that nothing does: refused, unless it is known to be idle.
Result<> refuse_unused(const DecoderSpec& spec, const Checkpoint& checkpoint,
                       std::vector<std::string_view> used) {
  if (checkpoint.gguf())  // read already
    used.insert(used.end(), {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"});
  std::ranges::sort(used);
  for (const auto& tensor : checkpoint.tensors()) {
    if (std::ranges::binary_search(used, std::string_view(tensor.name)) || is_ignored(spec, tensor.name))
      continue;
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} has no place in a {} model of {} layers", formats::quote(tensor.name),
                            spec.architecture, spec.layer_count()));
  }
  return {};
}

}  // namespace

void visit_mixer_tensors(const DecoderSpec& spec, const MixerSpec& mixer, const TensorVisitor& visit) {
  std::visit(LayerVisitor(spec.hidden_size, visit), mixer);
}

void visit_feed_forward_tensors(const DecoderSpec& spec, const FeedForwardSpec& feed_forward,
                                const TensorVisitor& visit) {
  std::visit(LayerVisitor(spec.hidden_size, visit), feed_forward);
}

void visit_layer_tensors(const DecoderSpec& spec, const LayerSpec& layer, const TensorVisitor& visit) {
  const LayerVisitor visitor(spec.hidden_size, visit);
  const Shape norm = {spec.hidden_size};
  visitor.required(layer.mixer_norm, norm);
  visitor.optional(layer.mixer_post_norm, norm);
  visit_mixer_tensors(spec, layer.mixer, visit);
  visitor.required(layer.feed_forward_norm, norm);
  visitor.optional(layer.feed_forward_post_norm, norm);
  visit_feed_forward_tensors(spec, layer.feed_forward, visit);
}

Result<const TensorInfo*> find_tensor(const Checkpoint& checkpoint, const TensorRef& ref,
                                      const Shape& shape) {
  const TensorInfo* tensor = checkpoint.find(ref.name);
  if (!tensor) return fail(ErrorCode::malformed, fmt::format("tensor '{}' is missing", ref.name));
  const Shape& expected = ref.shape.empty() ? shape : ref.shape;
  if (tensor->shape == expected) return tensor;
  return fail(ErrorCode::malformed,
              fmt::format("tensor '{}' has the shape [{}], the configuration asks for [{}]", tensor->name,
                          fmt::join(tensor->shape, ", "), fmt::join(expected, ", ")));
}

uint64_t value_count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
}

uint64_t bytes_of_part(const TensorInfo& tensor, const Shape& part) {
  const uint64_t whole = value_count(tensor.shape), values = value_count(part);
  if (whole == values || whole == 0) return tensor.stored_bytes();
  return static_cast<uint64_t>(static_cast<double>(tensor.stored_bytes()) * static_cast<double>(values) /
                               static_cast<double>(whole));
}

Result<> check_tensors(DecoderSpec& spec, const Checkpoint& checkpoint) {
  SHOAL_TRY_VOID(settle_vocabulary(spec, checkpoint));
  Result<> first_fault;
  std::vector<std::string_view> used;
  const auto check = [&](const TensorRef& ref, const Shape& shape, TensorRole) {
    if (!first_fault) return;
    used.push_back(ref.name);
    if (auto tensor = find_tensor(checkpoint, ref, shape); !tensor)
      first_fault = std::unexpected(std::move(tensor).error());
  };
  const Shape vocabulary = {spec.vocabulary_size, spec.hidden_size};
  check(spec.embedding, vocabulary, TensorRole::every_token);
  for (const auto& layer : spec.layers) visit_layer_tensors(spec, layer, check);
  check(spec.final_norm, {spec.hidden_size}, TensorRole::every_token);
  check(spec.head, vocabulary, TensorRole::every_token);
  SHOAL_TRY_VOID(first_fault);
  return refuse_unused(spec, checkpoint, std::move(used));
}

}  // namespace shoal::model
