// The node as a watcher of its own placements: what steps take is held against what was predicted.
#include "base/log.h"
#include "serving/demand.h"
#include "serving/node.h"

namespace shoal::serving {

void Node::watch_drift() {
  std::erase_if(drifts_, [this](const auto& drift) { return !owners_.contains(drift.first); });
  for (const auto& [instance, owner] : owners_) {
    const cluster::InstanceFact* fact = cluster_->find_instance(instance);
    const std::vector<double> times = owner->take_token_milliseconds();
    if (fact == nullptr || times.empty()) continue;
    shelf_->find_digest(fact->digest, fact->model,
                        [this, id = instance, epoch = owner->epoch(),
                         times](const Result<std::shared_ptr<const ModelCard>>& card) {
                          if (cluster_ && card) hold_against_plan(id, epoch, **card, times);
                        });
  }
}

void Node::hold_against_plan(const std::string& instance, uint32_t epoch, const ModelCard& card,
                             const std::vector<double>& token_milliseconds) {
  const cluster::InstanceFact* fact = cluster_->find_instance(instance);
  if (fact == nullptr || find_owner(instance, epoch) == nullptr) return;
  const cluster::PlaceRequest request{.model = card.stored.name,
                                      .demand = model_demand(card, options_.kv_type),
                                      .options = {},
                                      .layer_count = card.layer_count,
                                      .digest = card.stored.digest,
                                      .kv_page_tokens = fact->kv_page_tokens,
                                      .weights = card.weights};
  const cluster::PlannerInput now = cluster_->planner_input(request);
  std::vector<double> seconds;
  for (const double milliseconds : token_milliseconds) seconds.push_back(milliseconds / 1000);
  Drift& drift = drifts_[instance];
  // A node that has just left is no news here: the instance ends by it.
  if (!drift.watch.observe(*fact, request.demand, now, seconds)) return;
  Result<std::vector<std::string>> advice = drift.watch.advice(*fact, request.demand, now);
  if (!advice) return;
  if (*advice != drift.advice)
    for (const std::string& words : *advice) log_info("node", "instance {}: {}", instance, words);
  drift.advice = *std::move(advice);
}

std::vector<std::string> Node::advice_of(const std::string& instance) const {
  const auto found = drifts_.find(instance);
  return found == drifts_.end() ? std::vector<std::string>() : found->second.advice;
}

}  // namespace shoal::serving
