#include "planner/problem.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "planner/shares.h"

namespace shoal::planner {
namespace {

std::unexpected<Error> too_large(const ModelDemand& model) {
  return fail(ErrorCode::limit_exceeded, fmt::format("the sizes of {} overflow 64 bits", model.name),
              "lower the context or the concurrency");
}

bool same_layer(const LayerDemand& a, const LayerDemand& b) {
  return a.weight_bytes == b.weight_bytes && a.kv_bytes_per_token == b.kv_bytes_per_token &&
         a.flops_per_token == b.flops_per_token && a.active_bytes == b.active_bytes &&
         a.state_bytes_per_sequence == b.state_bytes_per_sequence && a.expert_count == b.expert_count &&
         a.experts_used == b.experts_used && a.expert_bytes == b.expert_bytes &&
         a.query_heads == b.query_heads && a.kv_heads == b.kv_heads &&
         a.attention_bytes == b.attention_bytes && a.feed_forward_units == b.feed_forward_units &&
         a.replicated_bytes == b.replicated_bytes && a.kv_replicated == b.kv_replicated &&
         a.all_reduces == b.all_reduces;
}

// Keys, values and states of one layer; nullopt when they overflow.
std::optional<uint64_t> kept_bytes(const LayerDemand& layer, const PlanOptions& options) {
  auto tokens = checked_multiply(uint64_t{options.context_tokens}, uint64_t{options.concurrency});
  auto kv = tokens ? checked_multiply(layer.kv_bytes_per_token, *tokens) : tokens;
  auto states = checked_multiply(layer.state_bytes_per_sequence, uint64_t{options.state_slots});
  return kv && states ? checked_add(*kv, *states) : std::nullopt;
}

Result<> check_layer(const ModelDemand& model, const LayerDemand& layer) {
  auto parts = checked_add(layer.attention_bytes, layer.replicated_bytes);
  if (!parts || *parts > layer.weight_bytes || layer.expert_bytes > layer.weight_bytes - *parts ||
      layer.experts_used > layer.expert_count)
    return fail(ErrorCode::invalid_argument,
                fmt::format("a layer of {} has parts larger than itself", model.name));
  return {};
}

Result<> sum_layers(const ModelDemand& model, Problem& problem) {
  uint64_t memory = 0;
  problem.memory_bytes_before = {0};
  for (const LayerDemand& layer : model.layers) {
    size_t kind = 0;
    while (kind < problem.kinds.size() && !same_layer(problem.kinds[kind].demand, layer)) ++kind;
    if (kind == problem.kinds.size()) {
      SHOAL_TRY_VOID(check_layer(model, layer));
      auto kept = kept_bytes(layer, problem.options);
      if (!kept || !checked_add(layer.weight_bytes, *kept)) return too_large(model);
      problem.kinds.push_back({layer, *kept});
    }
    problem.kind_of.push_back(static_cast<uint16_t>(kind));
    auto sum = checked_add(memory, problem.kinds[kind].memory_bytes());
    if (!sum) return too_large(model);
    problem.memory_bytes_before.push_back(memory = *sum);
  }
  auto ends = checked_add(model.embedding_bytes, model.head_bytes);
  auto with_overhead = ends ? checked_add(*ends, model.overhead_bytes_per_stage) : ends;
  if (!with_overhead || !checked_add(*with_overhead, memory)) return too_large(model);
  return {};
}

double positive_or(double value, double otherwise) {
  return value > 0 && std::isfinite(value) ? value : otherwise;
}

// Usable devices and the paths between them, before equals are found.
struct Net {
  std::vector<uint32_t> devices;  // indices into plan()'s devices
  std::vector<Path> paths;        // [from * devices + to]

  const Path& path(size_t from, size_t to) const { return paths[from * devices.size() + to]; }
  // Whether a and b may change places: everybody else sees the same of both, and both of each other.
  bool alike(size_t a, size_t b) const {
    if (path(a, b) != path(b, a)) return false;
    for (size_t other = 0; other < devices.size(); ++other) {
      if (other == a || other == b) continue;
      if (path(a, other) != path(b, other) || path(other, a) != path(other, b)) return false;
    }
    return true;
  }
};

Net make_net(const std::vector<bool>& usable, const std::vector<LinkFigures>& links) {
  Net net;
  std::vector<uint32_t> index_of(usable.size(), UINT32_MAX);
  for (uint32_t device = 0; device < usable.size(); ++device) {
    if (!usable[device]) continue;
    index_of[device] = static_cast<uint32_t>(net.devices.size());
    net.devices.push_back(device);
  }
  net.paths.assign(net.devices.size() * net.devices.size(), path_of({}));
  for (const LinkFigures& link : links) {
    if (link.from >= usable.size() || link.to >= usable.size() || link.from == link.to) continue;
    uint32_t from = index_of[link.from], to = index_of[link.to];
    if (from == UINT32_MAX || to == UINT32_MAX) continue;
    net.paths[size_t{from} * net.devices.size() + to] = path_of(link);
  }
  return net;
}

bool same_figures(const Device& a, const Device& b) {
  return a.free_memory_bytes == b.free_memory_bytes &&
         a.decode_bytes_per_second == b.decode_bytes_per_second &&
         a.prefill_flops_per_second == b.prefill_flops_per_second &&
         a.layer_fixed_seconds == b.layer_fixed_seconds && a.threads == b.threads;
}

void find_classes(const std::vector<Device>& devices, const Net& net, Symmetry symmetry, Problem& problem) {
  std::vector<size_t> first;   // of each class, an index into net.devices
  std::vector<size_t> second;  // another of the same class; the first where there is none
  for (size_t index = 0; index < net.devices.size(); ++index) {
    const Device& device = devices[net.devices[index]];
    size_t c = 0;
    while (c < first.size() &&
           !(symmetry == Symmetry::used && same_figures(device, devices[net.devices[first[c]]]) &&
             net.alike(first[c], index)))
      ++c;
    if (c == first.size()) {
      first.push_back(index), second.push_back(index);
      problem.classes.push_back({device, {}});
    } else if (second[c] == first[c]) {
      second[c] = index;
    }
    problem.classes[c].devices.push_back(net.devices[index]);
  }
  for (size_t from = 0; from < first.size(); ++from)
    for (size_t to = 0; to < first.size(); ++to)
      problem.paths.push_back(net.path(first[from], from == to ? second[to] : first[to]));
  for (DeviceClass& c : problem.classes) {
    Device& figures = c.figures;
    figures.decode_bytes_per_second =
        positive_or(figures.decode_bytes_per_second, kDefaultDecodeBytesPerSecond);
    figures.prefill_flops_per_second =
        positive_or(figures.prefill_flops_per_second,
                    positive_or(figures.threads * kDefaultFlopsPerThread, kDefaultPrefillFlopsPerSecond));
    figures.layer_fixed_seconds = positive_or(figures.layer_fixed_seconds, 0);
  }
}

}  // namespace

uint32_t Problem::device_count() const {
  uint32_t devices = 0;
  for (const DeviceClass& c : classes) devices += c.count();
  return devices;
}

uint64_t Problem::end_bytes(uint32_t first_layer, uint32_t end_layer, double share) const {
  bool first = first_layer == 0, last = end_layer == layer_count();
  uint64_t bytes = overhead_bytes;
  if (first) bytes += embedding_bytes;
  if (!last || (share >= 1 && first && tied_embedding)) return bytes;
  return bytes + (share >= 1 ? head_bytes
                             : static_cast<uint64_t>(std::ceil(static_cast<double>(head_bytes) * share)));
}

uint64_t Problem::stage_memory_bytes(uint32_t first_layer, uint32_t end_layer) const {
  return memory_bytes_before[end_layer] - memory_bytes_before[first_layer] +
         end_bytes(first_layer, end_layer, 1);
}

double active_bytes(const LayerDemand& layer, double rows) {
  double weight = static_cast<double>(layer.weight_bytes);
  double active = layer.active_bytes == 0 ? weight : static_cast<double>(layer.active_bytes);
  // Experts that at least one of the rows chose, were they chosen evenly.
  auto touched = [rows](double share) { return 1 - std::pow(1 - share, rows); };
  if (layer.expert_bytes == 0) return active >= weight ? weight : weight * touched(active / weight);
  double experts = static_cast<double>(layer.expert_bytes);
  double share = layer.expert_count > 0 ? static_cast<double>(layer.experts_used) / layer.expert_count
                                        : std::clamp((active - (weight - experts)) / experts, 0.0, 1.0);
  return std::max(0.0, active - experts * share) + experts * touched(share);
}

Result<Problem> make_problem(const std::vector<Device>& devices, const std::vector<bool>& usable,
                             const std::vector<LinkFigures>& links, const ModelDemand& model,
                             const PlanOptions& options, Symmetry symmetry) {
  if (model.layers.empty())
    return fail(ErrorCode::invalid_argument, fmt::format("{} has no layers to place", model.name));
  if (model.layers.size() > limits::kMaxLayers) {
    return fail(ErrorCode::limit_exceeded, fmt::format("{} has {} layers, over the limit of {}", model.name,
                                                       model.layers.size(), limits::kMaxLayers));
  }
  Problem problem;
  problem.options = options;
  for (uint32_t* count : {&problem.options.concurrency, &problem.options.minimum_nodes,
                          &problem.options.prompt_tokens, &problem.options.prefill_chunk_tokens})
    *count = std::max(1u, *count);
  SHOAL_TRY_VOID(sum_layers(model, problem));
  problem.embedding_bytes = model.embedding_bytes;
  problem.head_bytes = model.head_bytes;
  problem.tied_embedding = model.tied_embedding;
  problem.head_flops = static_cast<double>(model.head_flops_per_token);
  problem.overhead_bytes = model.overhead_bytes_per_stage;
  problem.hidden_bytes = static_cast<double>(model.hidden_bytes_per_token);
  // Two operations for each of hidden size times vocabulary, four bytes for each of either.
  if (problem.hidden_bytes > 0) problem.logits_bytes = 8 * problem.head_flops / problem.hidden_bytes;
  find_classes(devices, make_net(usable, links), symmetry, problem);
  return problem;
}

}  // namespace shoal::planner
