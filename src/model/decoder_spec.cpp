#include "model/decoder_spec.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>

#include "base/limits.h"
#include "formats/layout.h"
#include "model/architectures/architecture.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;
using formats::TensorInfo;
using Shape = std::vector<uint64_t>;

const std::array kArchitectures = {&kLlama, &kQwen3};

// Tensors that models carry and nobody needs: precomputed frequencies in old files.
constexpr std::string_view kFrequenciesSuffix = ".rotary_emb.inv_freq";

Result<const Architecture*> find_architecture(std::string_view field, std::string_view name) {
  auto place = std::ranges::find(kArchitectures, name, &Architecture::name);
  if (place != kArchitectures.end()) return *place;
  return fail(ErrorCode::unsupported,
              fmt::format("{} is {}, which is not supported", field, formats::quote(name)),
              "shoal runs models of type llama and qwen3");
}

Result<DecoderSpec> read_from_config(const JsonObject& config) {
  const auto name = require_string(config, "model_type");
  if (!name)
    return formats::fail_within("config.json", Error{ErrorCode::malformed, name.error().message, ""});
  SHOAL_TRY(const Architecture* architecture, find_architecture("config.json: 'model_type'", *name));
  if (const Json* classes = find(config, "architectures")) {
    const JsonArray* list = classes->if_array();
    if (!list || (!list->empty() && list->front() != Json(architecture->class_name))) {
      return fail(ErrorCode::unsupported,
                  fmt::format("config.json: 'architectures' is {}, only {} is supported for {}",
                              formats::quote(to_text(*classes)), architecture->class_name, *name));
    }
  }
  return architecture->read_config(config);
}

Result<DecoderSpec> read_from_gguf(const Checkpoint& checkpoint) {
  SHOAL_TRY(const std::string name, checkpoint.gguf()->require_string("general.architecture"));
  SHOAL_TRY(const Architecture* architecture, find_architecture("'general.architecture'", name));
  return architecture->read_gguf(checkpoint);
}

// Calls visit(name, expected shape) for each tensor of a layer.
template <class Visit>
void visit_layer(const DecoderSpec& spec, const LayerSpec& layer, Visit visit) {
  const LayerTensors& names = layer.tensors;
  const uint64_t hidden = spec.hidden_size;
  const uint64_t head = layer.attention.head_dim;
  const uint64_t queries = layer.attention.query_heads * head;
  const uint64_t keys = layer.attention.kv_heads * head;
  const uint64_t width = layer.feed_forward.width;
  auto visit_optional = [&](const std::string& name, const Shape& shape) {
    if (!name.empty()) visit(name, shape);
  };
  visit(names.attention_norm, Shape{hidden});
  visit(names.query, Shape{queries, hidden});
  visit(names.key, Shape{keys, hidden});
  visit(names.value, Shape{keys, hidden});
  visit(names.output, Shape{hidden, queries});
  visit_optional(names.query_bias, {queries});
  visit_optional(names.key_bias, {keys});
  visit_optional(names.value_bias, {keys});
  visit_optional(names.output_bias, {hidden});
  visit_optional(names.query_norm, {head});
  visit_optional(names.key_norm, {head});
  visit(names.feed_forward_norm, Shape{hidden});
  visit(names.gate, Shape{width, hidden});
  visit(names.up, Shape{width, hidden});
  visit(names.down, Shape{hidden, width});
  visit_optional(names.gate_bias, {width});
  visit_optional(names.up_bias, {width});
  visit_optional(names.down_bias, {hidden});
}

template <class Visit>
void visit_all(const DecoderSpec& spec, Visit visit) {
  visit(spec.embedding, Shape{spec.vocabulary_size, spec.hidden_size});
  for (const auto& layer : spec.layers) visit_layer(spec, layer, visit);
  visit(spec.final_norm, Shape{spec.hidden_size});
  if (spec.head != spec.embedding) visit(spec.head, Shape{spec.vocabulary_size, spec.hidden_size});
}

Result<const TensorInfo*> require_tensor(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo* tensor = checkpoint.find(name);
  if (tensor) return tensor;
  return fail(ErrorCode::malformed, fmt::format("tensor '{}' is missing", name));
}

// The rows of the embedding, where the configuration leaves them open, and against the tokenizer in a GGUF.
Result<> settle_vocabulary(DecoderSpec& spec, const Checkpoint& checkpoint) {
  SHOAL_TRY(const TensorInfo* embedding, require_tensor(checkpoint, spec.embedding));
  const uint64_t rows = embedding->shape.empty() ? 0 : embedding->shape.front();
  if (rows > limits::kMaxVocabulary) {
    return fail(ErrorCode::limit_exceeded, fmt::format("tensor '{}' has {} rows, over the limit of {}",
                                                       spec.embedding, rows, limits::kMaxVocabulary));
  }
  if (spec.vocabulary_size == 0) spec.vocabulary_size = static_cast<uint32_t>(rows);
  if (!checkpoint.gguf()) return {};
  const auto* tokens = checkpoint.gguf()->find_strings("tokenizer.ggml.tokens");
  if (!tokens || tokens->size() <= rows) return {};
  return fail(ErrorCode::malformed,
              fmt::format("tensor '{}' has {} rows for {} tokens in 'tokenizer.ggml.tokens'", spec.embedding,
                          rows, tokens->size()));
}

Result<> check_shape(const TensorInfo& tensor, const Shape& expected) {
  if (tensor.shape == expected) return {};
  return fail(ErrorCode::malformed,
              fmt::format("tensor '{}' has the shape [{}], the configuration asks for [{}]", tensor.name,
                          fmt::join(tensor.shape, ", "), fmt::join(expected, ", ")));
}

// A tensor that nothing uses means maths that nothing does: refused, unless it is known to be idle.
Result<> refuse_unused(const DecoderSpec& spec, const Checkpoint& checkpoint,
                       std::vector<std::string_view> used) {
  const bool is_gguf = checkpoint.gguf() != nullptr;
  used.push_back(is_gguf ? "rope_freqs.weight"
                         : "lm_head.weight");  // read already; idle when the head is tied
  std::ranges::sort(used);
  for (const auto& tensor : checkpoint.tensors()) {
    if (std::ranges::binary_search(used, std::string_view(tensor.name)) ||
        tensor.name.ends_with(kFrequenciesSuffix)) {
      continue;
    }
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} has no place in a {} model of {} layers", formats::quote(tensor.name),
                            spec.architecture, spec.layer_count()));
  }
  return {};
}

Result<> check_tensors(const DecoderSpec& spec, const Checkpoint& checkpoint) {
  Result<> first_fault;
  std::vector<std::string_view> used;
  visit_all(spec, [&](const std::string& name, const Shape& expected) {
    if (!first_fault) return;
    used.push_back(name);
    auto tensor = require_tensor(checkpoint, name);
    first_fault = tensor ? check_shape(**tensor, expected) : std::unexpected(std::move(tensor).error());
  });
  SHOAL_TRY_VOID(first_fault);
  return refuse_unused(spec, checkpoint, std::move(used));
}

}  // namespace

Result<DecoderSpec> read_decoder_spec(const Checkpoint& checkpoint) {
  auto spec = checkpoint.config() ? read_from_config(*checkpoint.config()) : read_from_gguf(checkpoint);
  if (!spec) return spec;
  SHOAL_TRY_VOID(settle_vocabulary(*spec, checkpoint));
  SHOAL_TRY_VOID(check_tensors(*spec, checkpoint));
  return spec;
}

Result<ModelCost> model_cost(const DecoderSpec& spec, const Checkpoint& checkpoint) {
  ModelCost cost{};
  for (const auto& layer : spec.layers) {
    LayerCost& sum = cost.layers.emplace_back();
    Result<> first_fault;
    visit_layer(spec, layer, [&](const std::string& name, const Shape& shape) {
      if (!first_fault) return;
      auto tensor = require_tensor(checkpoint, name);
      if (!tensor) {
        first_fault = std::unexpected(std::move(tensor).error());
        return;
      }
      sum.weight_bytes += (*tensor)->bytes;
      if (shape.size() == 2) sum.flops_per_token += 2 * shape[0] * shape[1];
    });
    SHOAL_TRY_VOID(first_fault);
    sum.kv_values_per_token = uint64_t{2} * layer.attention.kv_heads * layer.attention.head_dim;
  }
  SHOAL_TRY(const TensorInfo* embedding, require_tensor(checkpoint, spec.embedding));
  SHOAL_TRY(const TensorInfo* norm, require_tensor(checkpoint, spec.final_norm));
  SHOAL_TRY(const TensorInfo* head, require_tensor(checkpoint, spec.head));
  cost.embedding_bytes = embedding->bytes;
  cost.head_bytes = head == embedding ? embedding->bytes : head->bytes + norm->bytes;
  cost.head_flops_per_token = uint64_t{2} * spec.vocabulary_size * spec.hidden_size;
  return cost;
}

}  // namespace shoal::model
