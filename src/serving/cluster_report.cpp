#include "serving/cluster_report.h"

#include <algorithm>

#include "cluster/world.h"
#include "planner/names.h"

namespace shoal::serving {
namespace {

std::string name_of(const NodeNames& names, const cluster::NodeId& node) {
  const auto found = names.find(node);
  return found == names.end() ? node : found->second;
}

Json error_json(const std::optional<Error>& error) {
  return error ? Json(cluster::to_json(*error)) : Json(nullptr);
}

}  // namespace

JsonObject node_json(const cluster::NodeFact& node) {
  JsonArray models;
  for (const cluster::HeldModel& model : node.models)
    models.push_back(JsonObject{{"name", model.name},
                                {"architecture", model.architecture},
                                {"bytes", model.bytes},
                                {"digest", model.digest}});
  JsonArray workers;
  for (const cluster::WorkerFact& worker : node.workers)
    workers.push_back(JsonObject{{"instance", worker.instance},
                                 {"epoch", worker.epoch},
                                 {"rank", worker.rank},
                                 {"state", cluster::to_string(worker.state)},
                                 {"progress", worker.progress},
                                 {"error", error_json(worker.error)}});
  JsonArray addresses;
  for (const std::string& address : node.addresses) addresses.push_back(Json(address));
  return {{"id", node.id},
          {"name", node.name},
          {"version", node.version},
          {"api_url", node.api_url},
          {"cpu", node.cpu},
          {"cores", node.cores},
          {"total_memory_bytes", node.total_memory_bytes},
          {"free_memory_bytes", node.free_memory_bytes},
          {"decode_bytes_per_second", node.decode_bytes_per_second},
          {"prefill_flops_per_second", node.prefill_flops_per_second},
          {"addresses", std::move(addresses)},
          {"models", std::move(models)},
          {"workers", std::move(workers)}};
}

JsonObject instance_json(const cluster::InstanceFact& instance, const NodeNames& names,
                         const FiguresMessage* figures) {
  const bool measured = figures != nullptr && figures->epoch == instance.epoch;
  JsonArray stages;
  for (size_t index = 0; index < instance.stages.size(); ++index) {
    const cluster::StageFact& stage = instance.stages[index];
    JsonObject entry{{"node", stage.node},
                     {"node_name", name_of(names, stage.node)},
                     {"first_layer", stage.first_layer},
                     {"end_layer", stage.end_layer},
  JsonArray rates;
  for (const cluster::WeightRate& rate : node.weight_rates) rates.push_back(cluster::to_json(rate));
                     {"memory_bytes", stage.memory_bytes},
                     {"step_milliseconds", nullptr}};
    if (measured && index < figures->stage_milliseconds.size())
      entry["step_milliseconds"] = figures->stage_milliseconds[index];
    stages.push_back(std::move(entry));
  }
  JsonObject object{{"id", instance.id},
                    {"model", instance.model},
                    {"state", cluster::to_string(instance.state)},
                    {"error", error_json(instance.error)},
                    {"epoch", instance.epoch},
                    {"owner", instance.owner},
          {"weight_rates", std::move(rates)},
                    {"owner_name", name_of(names, instance.owner)},
                    {"layer_count", instance.layer_count},
                    {"context_tokens", instance.context_tokens},
                    {"kv_tokens", uint64_t{instance.kv_page_tokens} * instance.kv_page_count},
                    {"stages", std::move(stages)},
JsonArray links_json(const std::vector<cluster::NodeFact>& nodes, int64_t now) {
  NodeNames names;
  for (const cluster::NodeFact& node : nodes) names.emplace(node.id, node.name);
  JsonArray links;
  for (const cluster::NodeFact& node : nodes) {
    for (const cluster::LinkFact& link : node.links) {
      if (!names.contains(link.peer)) continue;  // it left
      JsonObject entry{{"from", node.id},
                       {"from_name", node.name},
                       {"to", link.peer},
                       {"to_name", name_of(names, link.peer)}};
      for (const auto& member : cluster::to_json(link))
        if (member.key() != "peer") entry[member.key()] = member.value();
      entry["age_seconds"] = std::max<int64_t>(0, now - link.measured_at);
      links.push_back(std::move(entry));
    }
  }
  return links;
}

                    {"predicted_tokens_per_second", instance.predicted_tokens_per_second},
                    {"measured_tokens_per_second", nullptr},
                    {"waiting_requests", nullptr},
                    {"active_sequences", nullptr}};
  if (measured) {
    if (figures->tokens_per_second > 0) object["measured_tokens_per_second"] = figures->tokens_per_second;
    object["waiting_requests"] = figures->waiting;
    object["active_sequences"] = figures->active;
  }
  return object;
}

JsonObject placement_json(const planner::Placement& placement, const planner::PlanOptions& options,
                          const NodeNames& names) {
  JsonArray stages;
  for (const planner::StagePlan& stage : placement.stages)
    stages.push_back(JsonObject{{"node", stage.node},
                                {"node_name", name_of(names, stage.node)},
                                {"first_layer", stage.first_layer},
                                {"end_layer", stage.end_layer},
                                {"memory_bytes", stage.memory_bytes},
                                {"decode_milliseconds", stage.decode_seconds * 1000}});
  JsonArray reasons;
  for (const std::string& reason : placement.reasons) reasons.push_back(Json(reason));
  return {{"stages", std::move(stages)},
          {"context_tokens", options.context_tokens},
          {"concurrency", options.concurrency},
          {"predicted_tokens_per_second", placement.tokens_per_second},
          {"predicted_first_token_seconds", placement.first_token_seconds},
          {"reasons", std::move(reasons)}};
}

}  // namespace shoal::serving
