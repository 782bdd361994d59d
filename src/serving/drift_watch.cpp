#include "serving/drift_watch.h"

#include <algorithm>

#include "cluster/world.h"
#include "planner/predict.h"

namespace shoal::serving {
namespace {

std::vector<planner::StagePlan> running_stages(const cluster::InstanceFact& instance) {
  std::vector<planner::StagePlan> stages;
  for (const std::span<const cluster::RankFact> ranks : cluster::stages_of(instance)) {
    const cluster::RankFact& leader = ranks.front();
    stages.push_back(
        {.node = leader.node, .first_layer = leader.first_layer, .end_layer = leader.end_layer, .ranks = {}});
    for (const cluster::RankFact& rank : ranks)
      stages.back().ranks.push_back({.node = rank.node, .share_per_mille = rank.share});
  }
  return stages;
}

// What the instance was placed with, as far as its fact tells.
planner::PlanOptions options_of(const cluster::InstanceFact& instance) {
  planner::PlanOptions options;
  options.context_tokens = std::max(1u, instance.context_tokens);
  const uint64_t tokens = uint64_t{instance.kv_page_count} * instance.kv_page_tokens;
  options.concurrency = static_cast<uint32_t>(std::max<uint64_t>(1, tokens / options.context_tokens));
  options.state_slots = instance.state_slots;
  options.strategy = cluster::stage_count(instance) == instance.ranks.size() ? planner::Strategy::pipeline
                                                                             : planner::Strategy::automatic;
  options.wire = instance.wire;
  return options;
}

}  // namespace

Result<> DriftWatch::observe(const cluster::InstanceFact& instance, const planner::ModelDemand& demand,
                             const cluster::PlannerInput& now, std::span<const double> stage_seconds) {
  const std::vector<planner::StagePlan> stages = running_stages(instance);
  SHOAL_TRY(const std::vector<double> predicted,
            planner::predict_step(now.devices, now.links, demand, stages, 1, 1));
  for (size_t stage = 0; stage < std::min(predicted.size(), stage_seconds.size()); ++stage) {
    correction_.observe_stage(stages[stage], predicted[stage], stage_seconds[stage]);
  }
  return {};
}

Result<std::vector<std::string>> DriftWatch::advice(const cluster::InstanceFact& instance,
                                                    const planner::ModelDemand& demand,
                                                    cluster::PlannerInput now) const {
  std::vector<std::string> words;
  for (const planner::Drift& drift : correction_.drifts()) {
    const bool takes_part = std::ranges::any_of(
        instance.ranks, [&](const cluster::RankFact& rank) { return rank.node == drift.node; });
    // Who is faster than measured (a model that fits the caches) is nothing to worry about.
    if (takes_part && drift.factor > 1) words.push_back(planner::drift_words(drift, now.devices));
  }
  if (words.empty()) return words;
  for (planner::Device& device : now.devices) {
    for (const cluster::RankFact& rank : instance.ranks) {
      if (rank.node == device.node) device.free_memory_bytes += rank.memory_bytes;
    }
  }
  SHOAL_TRY(const std::optional<planner::BetterPlacement> better,
            planner::find_better(now.devices, now.links, demand, options_of(instance),
                                 running_stages(instance), correction_));
  if (better) words.insert(words.begin(), better->words + "; stop the model and place it again to take it");
  return words;
}

}  // namespace shoal::serving
