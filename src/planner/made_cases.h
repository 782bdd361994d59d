// Devices, models and random cases for this room's tests.
#pragma once

#include <fmt/format.h>
#include <random>
#include <string>
#include <vector>

#include "planner/planner.h"

namespace shoal::planner {

inline constexpr uint64_t kMiB = 1 << 20;

inline Device device(std::string name, uint64_t memory_bytes, double speed) {
  return {"id-" + name, name, memory_bytes, speed, 100e9, true};
}

inline ModelDemand even_model(uint32_t layers, uint64_t layer_bytes) {
  ModelDemand model;
  model.name = "even";
  LayerDemand layer;
  layer.weight_bytes = layer_bytes;
  layer.flops_per_token = 2 * layer_bytes;
  model.layers.assign(layers, layer);
  model.hidden_bytes_per_token = 4096;
  return model;
}

// The same, and ranks can share its layers.
inline ModelDemand shareable_model(uint32_t layers, uint64_t layer_bytes, uint32_t kv_heads, uint32_t units) {
  ModelDemand model = even_model(layers, layer_bytes);
  for (LayerDemand& layer : model.layers) {
    layer.query_heads = 4 * kv_heads;
    layer.kv_heads = kv_heads;
    layer.attention_bytes = layer_bytes / 4;
    layer.feed_forward_units = units;
  }
  return model;
}

inline PlanOptions small_context() {
  PlanOptions options;
  options.context_tokens = 1;
  return options;
}

inline std::vector<LinkFigures> mesh(uint32_t devices, double round_trip_seconds, double bytes_per_second,
                                     LinkKind kind = LinkKind::ethernet) {
  std::vector<LinkFigures> links;
  for (uint32_t from = 0; from < devices; ++from)
    for (uint32_t to = 0; to < devices; ++to)
      if (from != to) links.push_back({from, to, round_trip_seconds, bytes_per_second, 0, kind});
  return links;
}

struct RandomCase {
  std::vector<Device> devices;
  std::vector<LinkFigures> links;
  ModelDemand model;
  PlanOptions options;
};

// Memory that is too little about as often as not, links from fast to slow, layers of two kinds.
inline RandomCase random_case(std::mt19937& random, uint32_t device_count, uint32_t layer_count,
                              bool shareable) {
  auto below = [&](uint64_t n) { return random() % n; };
  RandomCase c;
  bool equals = below(4) == 0;
  for (uint32_t i = 0; i < device_count; ++i) {
    c.devices.push_back(device(std::string(1, static_cast<char>('a' + i)), below(layer_count * 130) * kMiB,
                               1e9 * static_cast<double>(1 + below(20))));
    c.devices.back().prefill_flops_per_second = 1e9 * static_cast<double>(1 + below(200));
    if (equals && i > 0) {
      Device same = c.devices.front();
      same.node = c.devices.back().node, same.name = c.devices.back().name;
      c.devices.back() = same;
    }
  }
  if (equals) {
    c.links = mesh(device_count, 1e-4 * static_cast<double>(1 + below(40)), 1e8);
  } else {
    double scale = below(2) == 0 ? 1e-3 : 5e-5;
    for (uint32_t i = 0; i < device_count; ++i)
      for (uint32_t j = 0; j < device_count; ++j)
        if (i != j && below(2) == 0)
          c.links.push_back({i, j, scale * static_cast<double>(1 + below(20)), 1e8});
  }
  c.model.name = "random";
  std::vector<LayerDemand> kinds(2);
  for (LayerDemand& layer : kinds) {
    layer.weight_bytes = (20 + below(100)) * kMiB;
    layer.kv_bytes_per_token = below(3) * kMiB;
    layer.flops_per_token = 10 * kMiB * (1 + below(20));
    layer.active_bytes = below(20) * kMiB;
    if (!shareable) continue;
    layer.kv_heads = static_cast<uint32_t>(1 + below(4));
    layer.query_heads = 4 * layer.kv_heads;
    layer.attention_bytes = layer.weight_bytes / (2 + below(4));
    layer.replicated_bytes = below(3) * kMiB;
    layer.feed_forward_units = static_cast<uint32_t>(4 + below(20));
  }
  for (uint32_t i = 0; i < layer_count; ++i) c.model.layers.push_back(kinds[below(2)]);
  c.model.embedding_bytes = below(100) * kMiB;
  c.model.head_bytes = below(2) ? c.model.embedding_bytes : below(100) * kMiB;
  c.model.tied_embedding = c.model.head_bytes == c.model.embedding_bytes;
  c.model.overhead_bytes_per_stage = below(30) * kMiB;
  c.model.hidden_bytes_per_token = 8192;
  c.options.context_tokens = static_cast<uint32_t>(1 + below(4));
  c.options.minimum_nodes = static_cast<uint32_t>(1 + below(3));
  return c;
}

}  // namespace shoal::planner
