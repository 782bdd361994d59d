#include "cli/model_summary.h"

#include <algorithm>
#include <map>

#include "base/limits.h"
#include "engine/engine.h"
#include "model/decoder_spec.h"
#include "serving/demand.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace shoal::cli {
namespace {

JsonObject describe(const model::AttentionSpec& attention) {
  JsonObject kind{{"kind", attention.window > 0 ? "sliding_attention" : "attention"},
                  {"query_heads", attention.query_heads},
                  {"kv_heads", attention.kv_heads},
                  {"head_size", attention.head_dim}};
  if (attention.window > 0) kind["window"] = attention.window;
  return kind;
}

JsonObject describe(const model::LatentAttentionSpec& latent) {
  return {{"kind", "latent_attention"},
          {"query_heads", latent.heads},
          {"latent_rank", latent.latent_rank},
          {"query_head_size", latent.nope_dim + latent.rope.dimensions},
          {"value_head_size", latent.value_dim}};
}

JsonObject describe(const model::DeltaNetSpec& delta) {
  return {{"kind", "delta_net"},
          {"key_heads", delta.op.key_heads},
          {"value_heads", delta.op.value_heads},
          {"key_head_size", delta.op.key_dim},
          {"value_head_size", delta.op.value_dim}};
}

JsonObject describe(const model::DenseSpec& dense) {
  return {{"kind", "dense"}, {"width", dense.width}};
}

JsonObject describe(const model::MixtureSpec& mixture) {
  JsonObject kind{{"kind", "mixture"},
                  {"experts", mixture.router_op.expert_count},
                  {"experts_used", mixture.router_op.used},
                  {"expert_width", mixture.width}};
  if (mixture.shared) kind["shared_width"] = mixture.shared->width;
  return kind;
}

// The kinds of a layer's part, in the order in which they first occur, each with how many layers have it.
template <class Part>
JsonArray kinds(const model::DecoderSpec& spec, Part part) {
  std::vector<std::pair<JsonObject, uint32_t>> found;
  for (const model::LayerSpec& layer : spec.layers) {
    const JsonObject kind = std::visit([](const auto& one) { return describe(one); }, layer.*part);
    const auto known = std::ranges::find(found, kind, &std::pair<JsonObject, uint32_t>::first);
    if (known == found.end()) {
      found.emplace_back(kind, 1);
    } else {
      known->second += 1;
    }
  }
  JsonArray list;
  for (auto& [kind, layers] : found) {
    kind["layers"] = layers;
    list.push_back(std::move(kind));
  }
  return list;
}

// Parameters of the experts that a token passes by.
uint64_t idle_parameters(const model::DecoderSpec& spec) {
  uint64_t idle = 0;
  for (const model::LayerSpec& layer : spec.layers) {
    const auto* mixture = std::get_if<model::MixtureSpec>(&layer.feed_forward);
    if (mixture == nullptr) continue;
    const uint64_t weights = 3ull * mixture->width * spec.hidden_size;
    const uint64_t biases = mixture->gate_bias.empty() ? 0 : 2ull * mixture->width + spec.hidden_size;
    idle += (mixture->router_op.expert_count - mixture->router_op.used) * (weights + biases);
  }
  return idle;
}

JsonArray tensor_types(const formats::Checkpoint& checkpoint) {
  struct Sum {
    uint64_t tensors = 0, bytes = 0;
  };
  std::map<formats::TensorType, Sum> sums;
  for (const formats::TensorInfo& tensor : checkpoint.tensors()) {
    Sum& sum = sums[tensor.type];
    sum.tensors += 1;
    sum.bytes += tensor.stored_bytes();
  }
  std::vector<std::pair<formats::TensorType, Sum>> ordered(sums.begin(), sums.end());
  std::ranges::sort(ordered, [](const auto& a, const auto& b) {
    return a.second.bytes != b.second.bytes ? a.second.bytes > b.second.bytes : a.first < b.first;
  });
  const double total = static_cast<double>(std::max<uint64_t>(1, checkpoint.total_bytes()));
  JsonArray list;
  for (const auto& [type, sum] : ordered)
    list.push_back(JsonObject{{"type", formats::to_string(type)},
                              {"tensors", sum.tensors},
                              {"bytes", sum.bytes},
                              {"share", static_cast<double>(sum.bytes) / total}});
  return list;
}

JsonObject layer_bytes(const model::ModelCost& cost) {
  std::vector<uint64_t> bytes;
  uint64_t total = 0;
  for (const model::LayerCost& layer : cost.layers) {
    bytes.push_back(layer.weight_bytes);
    total += layer.weight_bytes;
  }
  std::ranges::sort(bytes);
  return {{"minimum", bytes.front()},
          {"median", bytes[bytes.size() / 2]},
          {"maximum", bytes.back()},
          {"total", total}};
}

JsonObject kv_bytes(const model::ModelCost& cost) {
  uint64_t values = 0;
  for (const model::LayerCost& layer : cost.layers) values += layer.kv_values_per_token;
  const auto bytes = [values](engine::KvType type) {
    return static_cast<uint64_t>(static_cast<double>(values) * serving::kv_bytes_per_value(type) + 0.5);
  };
  return {{"f32", bytes(engine::KvType::f32)},
          {"f16", bytes(engine::KvType::f16)},
          {"q8", bytes(engine::KvType::q8)}};
}

// "gpt2 (qwen2)" of a GGUF, "BPE" of a tokenizer.json.
Result<std::string> tokenizer_kind(const formats::Checkpoint& checkpoint) {
  if (const formats::GgufMetadata* metadata = checkpoint.gguf()) {
    SHOAL_TRY(const auto kind, metadata->get_string("tokenizer.ggml.model"));
    SHOAL_TRY(const auto pre, metadata->get_string("tokenizer.ggml.pre"));
    return kind.value_or("unknown") + (pre ? " (" + *pre + ")" : "");
  }
  SHOAL_TRY(const std::string text, checkpoint.read_sibling("tokenizer.json", limits::kMaxTokenizerBytes));
  SHOAL_TRY(const JsonObject json, parse_json_object(text, "tokenizer.json"));
  SHOAL_TRY(const JsonObject* model, get_object(json, "model"));
  if (model == nullptr) return std::string("unknown");
  SHOAL_TRY(const auto kind, get_string(*model, "type"));
  return kind.value_or("unknown");
}

Result<JsonObject> tokenizer_summary(const formats::Checkpoint& checkpoint) {
  SHOAL_TRY(const text::Tokenizer tokenizer, text::Tokenizer::open(checkpoint));
  SHOAL_TRY(const std::string kind, tokenizer_kind(checkpoint));
  return JsonObject{{"kind", kind}, {"vocabulary_size", tokenizer.vocabulary_size()}};
}

// The names that are used: a template for chats with tools stands beside the one for all others.
Result<JsonArray> template_names(const formats::Checkpoint& checkpoint) {
  SHOAL_TRY(const text::ChatTemplate chat, text::ChatTemplate::from_checkpoint(checkpoint));
  JsonArray names{"default"};
  if (chat.has_tool_template()) names.push_back("tool_use");
  return names;
}

JsonObject error_json(const Error& error) {
  return {{"error", error.text()}};
}

JsonArray file_list(const formats::Checkpoint& checkpoint) {
  JsonArray files;
  for (const std::filesystem::path& file : checkpoint.files()) {
    std::error_code error;
    const uintmax_t bytes = std::filesystem::file_size(file, error);
    files.push_back(JsonObject{{"path", file.string()}, {"bytes", error ? 0 : bytes}});
  }
  return files;
}

}  // namespace

Result<JsonObject> model_summary(const std::string& name, const formats::Checkpoint& checkpoint) {
  SHOAL_TRY(const model::DecoderSpec spec, model::read_decoder_spec(checkpoint));
  SHOAL_TRY(const model::ModelCost cost, model::model_cost(spec, checkpoint));
  uint64_t state_bytes = 0;
  for (const model::LayerCost& layer : cost.layers) state_bytes += layer.state_bytes;
  JsonObject summary{{"name", name},
                     {"architecture", spec.architecture},
                     {"parameters", cost.parameters},
                     {"active_parameters", cost.parameters - idle_parameters(spec)},
                     {"layers", spec.layer_count()},
                     {"mixers", kinds(spec, &model::LayerSpec::mixer)},
                     {"feed_forwards", kinds(spec, &model::LayerSpec::feed_forward)},
                     {"hidden_size", spec.hidden_size},
                     {"vocabulary_size", spec.vocabulary_size},
                     {"context_tokens", spec.context_tokens},
                     {"tied_embedding", spec.tied()},
                     {"tensor_types", tensor_types(checkpoint)},
                     {"layer_bytes", layer_bytes(cost)},
                     {"embedding_bytes", cost.embedding_bytes},
                     {"head_bytes", cost.head_bytes},
                     {"weight_bytes", checkpoint.total_bytes()},
                     {"kv_bytes_per_token", kv_bytes(cost)},
                     {"state_bytes_per_sequence", state_bytes}};
  const Result<JsonObject> tokenizer = tokenizer_summary(checkpoint);
  summary["tokenizer"] = tokenizer ? *tokenizer : error_json(tokenizer.error());
  const Result<JsonArray> templates = template_names(checkpoint);
  if (templates) {
    summary["chat_templates"] = *templates;
  } else if (templates.error().code == ErrorCode::not_found) {
    summary["chat_templates"] = JsonArray{};
  } else {
    summary["chat_templates"] = error_json(templates.error());
  }
  summary["format"] = checkpoint.format() == formats::CheckpointFormat::gguf ? "gguf" : "safetensors";
  summary["files"] = file_list(checkpoint);
  return summary;
}

}  // namespace shoal::cli
