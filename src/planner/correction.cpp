#include "planner/correction.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <tuple>

#include "planner/predict.h"

namespace shoal::planner {
namespace {

constexpr double kSmoothing = 0.1;
constexpr double kMostFactor = 20;  // a machine that slept, not one that is slow

double objective_rate(const Placement& placement, Objective objective) {
  switch (objective) {
    case Objective::latency:
      return placement.tokens_per_second;
    case Objective::throughput:
      return placement.batch_tokens_per_second;
    case Objective::ttft:
      return placement.first_token_seconds > 0 ? 1 / placement.first_token_seconds : 0;
  }
  return 0;
}

std::string name_of(const std::string& node, const std::vector<Device>& devices) {
  for (const Device& device : devices)
    if (device.node == node) return device.name;
  return node;
}

}  // namespace

void Correction::Factor::observe(double predicted_seconds, double observed_seconds) {
  double ratio = observed_seconds / predicted_seconds;
  if (!(predicted_seconds > 0) || !(observed_seconds > 0) || !std::isfinite(ratio)) return;
  double sample = std::log(std::clamp(ratio, 1 / kMostFactor, kMostFactor));
  // A plain mean at first, then the recent past.
  observations = std::min(observations + 1, UINT32_MAX - 1);
  logarithm += (sample - logarithm) * std::max(kSmoothing, 1.0 / observations);
}

double Correction::Factor::value() const {
  return observations < kLeastObservations ? 1 : std::exp(logarithm);
}

void Correction::observe_rank(const std::string& node, double predicted_seconds, double observed_seconds) {
  devices_[node].observe(predicted_seconds, observed_seconds);
}

void Correction::observe_link(const std::string& from, const std::string& to, double predicted_seconds,
                              double observed_seconds) {
  links_[{from, to}].observe(predicted_seconds, observed_seconds);
}

void Correction::observe_stage(const StagePlan& stage, double predicted_seconds, double observed_seconds) {
  for (const RankPlan& rank : stage.ranks) observe_rank(rank.node, predicted_seconds, observed_seconds);
}

double Correction::device_factor(const std::string& node) const {
  auto found = devices_.find(node);
  return found == devices_.end() ? 1 : found->second.value();
}

double Correction::link_factor(const std::string& from, const std::string& to) const {
  auto found = links_.find({from, to});
  return found == links_.end() ? 1 : found->second.value();
}

std::vector<Drift> Correction::drifts() const {
  std::vector<Drift> drifts;
  auto beyond = [](double factor) { return factor > 1 + kDrift || factor < 1 - kDrift; };
  for (const auto& [node, factor] : devices_)
    if (beyond(factor.value())) drifts.push_back({node, {}, factor.value()});
  for (const auto& [pair, factor] : links_)
    if (beyond(factor.value())) drifts.push_back({pair.first, pair.second, factor.value()});
  auto badness = [](const Drift& drift) { return -std::abs(std::log(drift.factor)); };
  std::sort(drifts.begin(), drifts.end(), [&](const Drift& a, const Drift& b) {
    return std::tuple(badness(a), a.node, a.peer) < std::tuple(badness(b), b.node, b.peer);
  });
  return drifts;
}

void Correction::correct(std::vector<Device>& devices, std::vector<LinkFigures>& links) const {
  for (Device& device : devices) {
    double factor = device_factor(device.node);
    device.decode_bytes_per_second /= factor;
    device.prefill_flops_per_second /= factor;
    device.layer_fixed_seconds *= factor;
  }
  for (LinkFigures& link : links) {
    if (link.from >= devices.size() || link.to >= devices.size()) continue;
    double factor = link_factor(devices[link.from].node, devices[link.to].node);
    link.round_trip_seconds *= factor;
    link.round_trip_p99_seconds *= factor;
    link.bytes_per_second /= factor;
  }
}

void Correction::forget(const std::string& node) {
  devices_.erase(node);
  std::erase_if(links_,
                [&](const auto& link) { return link.first.first == node || link.first.second == node; });
}

std::string drift_words(const Drift& drift, const std::vector<Device>& devices) {
  std::string what = drift.peer.empty() ? name_of(drift.node, devices)
                                        : fmt::format("the link from {} to {}", name_of(drift.node, devices),
                                                      name_of(drift.peer, devices));
  if (drift.factor > 1)
    return fmt::format("{} takes {:.0f} % longer than measured", what, (drift.factor - 1) * 100);
  return fmt::format("{} takes {:.0f} % less time than measured", what, (1 - drift.factor) * 100);
}

Result<std::optional<BetterPlacement>> find_better(std::vector<Device> devices,
                                                   std::vector<LinkFigures> links, const ModelDemand& model,
                                                   const PlanOptions& options,
                                                   const std::vector<StagePlan>& running,
                                                   const Correction& correction) {
  correction.correct(devices, links);
  BetterPlacement better;
  SHOAL_TRY(better.running, predict(devices, links, model, options, running));
  SHOAL_TRY(std::vector<Placement> placements, plan(devices, links, model, options));
  better.proposed = std::move(placements.front());
  double now = objective_rate(better.running, options.objective);
  better.gain = now > 0 ? objective_rate(better.proposed, options.objective) / now - 1 : 0;
  if (better.gain < kWorthMoving) return std::optional<BetterPlacement>();
  better.words = fmt::format("a better placement exists: gain {:.0f} %", better.gain * 100);
  return better;
}

}  // namespace shoal::planner
