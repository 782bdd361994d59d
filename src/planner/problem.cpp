#include "planner/problem.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/bytes.h"
#include "base/limits.h"

namespace shoal::planner {
namespace {

std::unexpected<Error> too_large(const ModelDemand& model) {
  return fail(ErrorCode::limit_exceeded, fmt::format("the sizes of {} overflow 64 bits", model.name),
              "lower the context or the concurrency");
}

// Weights, KV and states of one layer; nullopt when they overflow.
std::optional<uint64_t> memory_of(const LayerDemand& layer, uint64_t kv_tokens, uint64_t state_slots) {
  auto kv = checked_multiply(layer.kv_bytes_per_token, kv_tokens);
  auto states = checked_multiply(layer.state_bytes_per_sequence, state_slots);
  auto kept = kv && states ? checked_add(*kv, *states) : std::nullopt;
  return kept ? checked_add(layer.weight_bytes, *kept) : std::nullopt;
}

Result<> sum_layers(const ModelDemand& model, uint64_t kv_tokens, uint64_t state_slots, Problem& problem) {
  double weights = 0, active = 0, flops = 0;
  uint64_t memory = 0;
  problem.weight_bytes_before = {0};
  problem.active_bytes_before = {0};
  problem.memory_bytes_before = {0};
  problem.flops_before = {0};
  for (const LayerDemand& layer : model.layers) {
    auto own = memory_of(layer, kv_tokens, state_slots);
    auto sum = own ? checked_add(memory, *own) : own;
    if (!sum) return too_large(model);
    memory = *sum;
    weights += static_cast<double>(layer.weight_bytes);
    active += static_cast<double>(layer.active_bytes == 0 ? layer.weight_bytes : layer.active_bytes);
    flops += static_cast<double>(layer.flops_per_token);
    problem.weight_bytes_before.push_back(weights);
    problem.active_bytes_before.push_back(active);
    problem.memory_bytes_before.push_back(memory);
    problem.flops_before.push_back(flops);
  }
  auto ends = checked_add(model.embedding_bytes, model.head_bytes);
  auto with_overhead = ends ? checked_add(*ends, model.overhead_bytes_per_stage) : ends;
  if (!with_overhead || !checked_add(*with_overhead, memory)) return too_large(model);
  return {};
}

double positive_or(double value, double otherwise) {
  return value > 0 ? value : otherwise;
}

void fill_links(const std::vector<uint32_t>& index_of, const std::vector<LinkFigures>& links,
                Problem& problem) {
  size_t pairs = problem.devices.size() * problem.devices.size();
  auto one_way = [&](double round_trip, double bytes_per_second) {
    return round_trip / 2 + problem.hidden_bytes / bytes_per_second;
  };
  problem.hop_seconds.assign(pairs, one_way(kDefaultRoundTripSeconds, kDefaultLinkBytesPerSecond));
  problem.return_seconds.assign(pairs, kDefaultRoundTripSeconds / 2);
  problem.link_bytes_per_second.assign(pairs, kDefaultLinkBytesPerSecond);
  for (const LinkFigures& link : links) {
    if (link.from >= index_of.size() || link.to >= index_of.size()) continue;
    uint32_t from = index_of[link.from], to = index_of[link.to];
    if (from == UINT32_MAX || to == UINT32_MAX) continue;
    double round_trip = positive_or(link.round_trip_seconds, kDefaultRoundTripSeconds);
    double rate = positive_or(link.bytes_per_second, kDefaultLinkBytesPerSecond);
    problem.hop_seconds[problem.pair(from, to)] = one_way(round_trip, rate);
    problem.return_seconds[problem.pair(from, to)] = round_trip / 2;
    problem.link_bytes_per_second[problem.pair(from, to)] = rate;
  }
}

}  // namespace

uint64_t Problem::stage_memory_bytes(uint32_t first_layer, uint32_t end_layer) const {
  uint64_t bytes = overhead_bytes + memory_bytes_before[end_layer] - memory_bytes_before[first_layer];
  bool first = first_layer == 0, last = end_layer == layer_count;
  if (first) bytes += embedding_bytes;
  if (last && !(first && tied_embedding)) bytes += head_bytes;
  return bytes;
}

double Problem::stage_seconds(uint32_t device, uint32_t first_layer, uint32_t end_layer) const {
  double bytes = active_bytes_before[end_layer] - active_bytes_before[first_layer];
  if (end_layer == layer_count) bytes += static_cast<double>(head_bytes);
  return bytes / devices[device].decode_bytes_per_second;
}

double Problem::read_seconds(uint32_t device, uint32_t first_layer, uint32_t end_layer) const {
  double bytes = weight_bytes_before[end_layer] - weight_bytes_before[first_layer];
  if (end_layer == layer_count) bytes += static_cast<double>(head_bytes);
  return bytes / devices[device].decode_bytes_per_second;
}

double Problem::token_seconds(const std::vector<Cut>& cuts) const {
  double seconds = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    seconds += stage_seconds(cuts[i].device, cuts[i].first_layer, cuts[i].end_layer);
    if (i > 0) seconds += hop_seconds[pair(cuts[i - 1].device, cuts[i].device)];
  }
  if (cuts.size() > 1) seconds += return_seconds[pair(cuts.back().device, cuts.front().device)];
  return seconds;
}

double Problem::first_token_seconds(const std::vector<Cut>& cuts) const {
  double seconds = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    double flops = kPromptTokens * (flops_before[cuts[i].end_layer] - flops_before[cuts[i].first_layer]);
    if (i + 1 == cuts.size()) flops += head_flops;
    // A prompt is computed no faster than its weights are read once.
    seconds += std::max(flops / devices[cuts[i].device].prefill_flops_per_second,
                        read_seconds(cuts[i].device, cuts[i].first_layer, cuts[i].end_layer));
    if (i == 0) continue;
    size_t link = pair(cuts[i - 1].device, cuts[i].device);
    seconds += hop_seconds[link] + (kPromptTokens - 1) * hidden_bytes / link_bytes_per_second[link];
  }
  if (cuts.size() > 1) seconds += return_seconds[pair(cuts.back().device, cuts.front().device)];
  return seconds;
}

Result<Problem> make_problem(const std::vector<Device>& devices, const std::vector<bool>& usable,
                             const std::vector<LinkFigures>& links, const ModelDemand& model,
                             const PlanOptions& options) {
  if (model.layers.empty()) {
    return fail(ErrorCode::invalid_argument, fmt::format("{} has no layers to place", model.name));
  }
  if (model.layers.size() > limits::kMaxLayers) {
    return fail(ErrorCode::limit_exceeded, fmt::format("{} has {} layers, over the limit of {}", model.name,
                                                       model.layers.size(), limits::kMaxLayers));
  }
  Problem problem;
  uint64_t kv_tokens = uint64_t{options.context_tokens} * std::max(1u, options.concurrency);
  SHOAL_TRY_VOID(sum_layers(model, kv_tokens, options.state_slots, problem));
  problem.layer_count = static_cast<uint32_t>(model.layers.size());
  problem.embedding_bytes = model.embedding_bytes;
  problem.head_bytes = model.head_bytes;
  problem.tied_embedding = model.tied_embedding;
  problem.head_flops = static_cast<double>(model.head_flops_per_token);
  problem.overhead_bytes = model.overhead_bytes_per_stage;
  problem.hidden_bytes = static_cast<double>(model.hidden_bytes_per_token);
  problem.minimum_nodes = std::max(1u, options.minimum_nodes);

  std::vector<uint32_t> index_of(devices.size(), UINT32_MAX);
  for (size_t i = 0; i < devices.size(); ++i) {
    if (!usable[i]) continue;
    index_of[i] = static_cast<uint32_t>(problem.devices.size());
    Device device = devices[i];
    device.decode_bytes_per_second =
        positive_or(device.decode_bytes_per_second, kDefaultDecodeBytesPerSecond);
    device.prefill_flops_per_second =
        positive_or(device.prefill_flops_per_second, kDefaultPrefillFlopsPerSecond);
    problem.devices.push_back(std::move(device));
  }
  fill_links(index_of, links, problem);
  return problem;
}

}  // namespace shoal::planner
