#include "model_file.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/json.h"

namespace shoal::simulate {
namespace {

constexpr int64_t kMost = 1 << 24;  // of any count in these files
constexpr uint64_t kMostFileBytes = 1 << 20;
constexpr uint64_t kStageOverheadBytes = uint64_t{768} << 20;  // process, scratch, buffers

struct Bits {
  double attention = 16, dense = 16, experts = 16, shared = 16, embedding = 16, head = 16;
};

struct Attention {
  double split_values = 0, replicated_values = 0, kv_values = 0;
  uint32_t query_heads = 0, kv_heads = 0;
  bool latent = false;
};

uint64_t bytes_of(double values, double bits) {
  return static_cast<uint64_t>(std::ceil(values * bits / 8));
}

Result<double> count(const JsonObject& object, std::string_view name) {
  SHOAL_TRY(int64_t value, require_integer(object, name, 0, kMost));
  return static_cast<double>(value);
}

Result<const JsonObject*> member(const JsonObject& object, std::string_view name) {
  SHOAL_TRY(const JsonObject* found, get_object(object, name));
  if (!found) return fail(ErrorCode::malformed, "'" + std::string(name) + "' is missing");
  return found;
}

Result<Bits> read_bits(const JsonObject& model) {
  SHOAL_TRY(const JsonObject* object, member(model, "bits"));
  Bits bits;
  for (auto [name, value] : {std::pair{"attention", &bits.attention},
                             {"dense", &bits.dense},
                             {"experts", &bits.experts},
                             {"shared", &bits.shared},
                             {"embedding", &bits.embedding},
                             {"head", &bits.head}}) {
    SHOAL_TRY(auto given, get_number(*object, name));
    *value = given.value_or(*value);
    if (!(*value > 0) || *value > 64) return fail(ErrorCode::malformed, "'bits' are not between 0 and 64");
  }
  return bits;
}

Result<Attention> read_attention(const JsonObject& model, double hidden) {
  SHOAL_TRY(const JsonObject* object, member(model, "attention"));
  SHOAL_TRY(std::string kind, require_string(*object, "kind"));
  Attention attention;
  SHOAL_TRY(double heads, count(*object, "heads"));
  attention.query_heads = static_cast<uint32_t>(heads);
  if (kind == "grouped") {
    SHOAL_TRY(double kv_heads, count(*object, "kv_heads"));
    SHOAL_TRY(double head_dim, count(*object, "head_dim"));
    attention.kv_heads = static_cast<uint32_t>(kv_heads);
    attention.split_values = 2 * hidden * head_dim * (heads + kv_heads);
    attention.replicated_values = 2 * hidden;
    attention.kv_values = 2 * kv_heads * head_dim;
    return attention;
  }
  if (kind != "latent") return fail(ErrorCode::unsupported, "attention kind '" + kind + "' is unknown");
  SHOAL_TRY(double query_rank, count(*object, "query_rank"));
  SHOAL_TRY(double latent_rank, count(*object, "latent_rank"));
  SHOAL_TRY(double nope, count(*object, "nope_dim"));
  SHOAL_TRY(double rope, count(*object, "rope_dim"));
  SHOAL_TRY(double value, count(*object, "value_dim"));
  attention.latent = true;
  attention.kv_heads = attention.query_heads;
  attention.split_values =
      heads * (query_rank * (nope + rope) + latent_rank * (nope + value) + value * hidden);
  attention.replicated_values = hidden * (query_rank + latent_rank + rope) + 2 * hidden;
  attention.kv_values = latent_rank + rope;
  return attention;
}

planner::LayerDemand base_layer(const Attention& attention, const Bits& bits) {
  planner::LayerDemand layer;
  layer.attention_bytes = bytes_of(attention.split_values, bits.attention);
  layer.replicated_bytes = bytes_of(attention.replicated_values, bits.attention);
  layer.kv_bytes_per_token = bytes_of(attention.kv_values, 16);
  layer.query_heads = attention.query_heads;
  layer.kv_heads = attention.kv_heads;
  layer.kv_replicated = attention.latent;
  layer.flops_per_token = static_cast<uint64_t>(2 * (attention.split_values + attention.replicated_values));
  layer.weight_bytes = layer.attention_bytes + layer.replicated_bytes;
  return layer;
}

Result<planner::LayerDemand> dense_layer(const JsonObject& model, const Attention& attention,
                                         const Bits& bits, double hidden, double unit) {
  SHOAL_TRY(const JsonObject* object, member(model, "dense"));
  SHOAL_TRY(double width, count(*object, "width"));
  planner::LayerDemand layer = base_layer(attention, bits);
  layer.weight_bytes += bytes_of(3 * hidden * width, bits.dense);
  layer.active_bytes = layer.weight_bytes;
  layer.flops_per_token += static_cast<uint64_t>(6 * hidden * width);
  layer.feed_forward_units = static_cast<uint32_t>(width / unit);
  return layer;
}

Result<planner::LayerDemand> mixture_layer(const JsonObject& object, const Attention& attention,
                                           const Bits& bits, double hidden, double unit) {
  SHOAL_TRY(double experts, count(object, "experts"));
  SHOAL_TRY(double used, count(object, "used"));
  SHOAL_TRY(double width, count(object, "width"));
  SHOAL_TRY(double shared_width, count(object, "shared_width"));
  planner::LayerDemand layer = base_layer(attention, bits);
  layer.replicated_bytes += bytes_of(hidden * experts, 16);  // the router
  layer.weight_bytes = layer.attention_bytes + layer.replicated_bytes;
  layer.expert_count = static_cast<uint32_t>(experts);
  layer.experts_used = static_cast<uint32_t>(used);
  layer.expert_bytes = bytes_of(3 * hidden * width * experts, bits.experts);
  const uint64_t shared = bytes_of(3 * hidden * shared_width, bits.shared);
  layer.active_bytes = layer.weight_bytes + shared + bytes_of(3 * hidden * width * used, bits.experts);
  layer.weight_bytes += shared + layer.expert_bytes;
  layer.flops_per_token +=
      static_cast<uint64_t>(6 * hidden * (width * used + shared_width) + 2 * hidden * experts);
  layer.feed_forward_units = static_cast<uint32_t>(width / unit);
  return layer;
}

}  // namespace

Result<planner::ModelDemand> read_model_file(const std::filesystem::path& path) {
  SHOAL_TRY(std::string text, read_text_file(path, kMostFileBytes));
  SHOAL_TRY(JsonObject model, parse_json_object(text, path.string()));
  SHOAL_TRY(double hidden, count(model, "hidden_size"));
  SHOAL_TRY(double layers, count(model, "layers"));
  SHOAL_TRY(double vocabulary, count(model, "vocabulary"));
  SHOAL_TRY(auto block, get_integer(model, "block", 1, 4096));
  const double unit = static_cast<double>(block.value_or(64));
  SHOAL_TRY(Bits bits, read_bits(model));
  SHOAL_TRY(Attention attention, read_attention(model, hidden));
  SHOAL_TRY(const JsonObject* mixture, get_object(model, "mixture"));
  double dense_layers = layers;
  planner::ModelDemand demand;
  SHOAL_TRY(demand.name, require_string(model, "name"));
  if (mixture) {
    SHOAL_TRY(auto first, get_integer(model, "dense_layers", 0, 1024));
    dense_layers = static_cast<double>(first.value_or(0));
  }
  if (dense_layers > 0) {
    SHOAL_TRY(planner::LayerDemand layer, dense_layer(model, attention, bits, hidden, unit));
    demand.layers.assign(static_cast<size_t>(dense_layers), layer);
  }
  if (mixture) {
    SHOAL_TRY(planner::LayerDemand layer, mixture_layer(*mixture, attention, bits, hidden, unit));
    demand.layers.resize(static_cast<size_t>(std::max(layers, dense_layers)), layer);
  }
  demand.embedding_bytes = bytes_of(vocabulary * hidden, bits.embedding);
  demand.head_bytes = bytes_of(vocabulary * hidden, bits.head);
  demand.head_flops_per_token = static_cast<uint64_t>(2 * vocabulary * hidden);
  demand.hidden_bytes_per_token = static_cast<uint64_t>(4 * hidden);
  demand.overhead_bytes_per_stage = kStageOverheadBytes;
  return demand;
}

}  // namespace shoal::simulate
