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

// A stage of several ranks is named by its leader.
JsonArray stages_json(const cluster::InstanceFact& instance, const NodeNames& names) {
  JsonArray stages;
  for (const std::span<const cluster::RankFact> members : cluster::stages_of(instance)) {
    const cluster::RankFact& leader = members.front();
    JsonArray ranks;
    uint64_t memory_bytes = 0;
    for (const cluster::RankFact& member : members) {
      memory_bytes += member.memory_bytes;
      ranks.push_back(JsonObject{{"node", member.node},
                                 {"node_name", name_of(names, member.node)},
                                 {"share", member.share},
                                 {"memory_bytes", member.memory_bytes}});
    }
    stages.push_back(JsonObject{{"node", leader.node},
                                {"node_name", name_of(names, leader.node)},
                                {"first_layer", leader.first_layer},
                                {"end_layer", leader.end_layer},
                                {"memory_bytes", memory_bytes},
                                {"ranks", std::move(ranks)},
                                {"step_milliseconds", nullptr}});
  }
  return stages;
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
  JsonArray rates;
  for (const cluster::WeightRate& rate : node.weight_rates) rates.push_back(cluster::to_json(rate));
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
          {"weight_rates", std::move(rates)},
          {"addresses", std::move(addresses)},
          {"models", std::move(models)},
          {"workers", std::move(workers)}};
}

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

JsonObject instance_json(const cluster::InstanceFact& instance, const NodeNames& names,
                         const FiguresMessage* figures) {
  const bool measured = figures != nullptr && figures->epoch == instance.epoch;
  JsonArray stages = stages_json(instance, names);
  for (size_t stage = 0; measured && stage < stages.size(); ++stage) {
    if (stage < figures->stage_milliseconds.size())
      stages[stage].as_object()["step_milliseconds"] = figures->stage_milliseconds[stage];
  }
  JsonObject object{{"id", instance.id},
                    {"model", instance.model},
                    {"state", cluster::to_string(instance.state)},
                    {"error", error_json(instance.error)},
                    {"epoch", instance.epoch},
                    {"owner", instance.owner},
                    {"owner_name", name_of(names, instance.owner)},
                    {"layer_count", instance.layer_count},
                    {"context_tokens", instance.context_tokens},
                    {"kv_tokens", uint64_t{instance.kv_page_tokens} * instance.kv_page_count},
                    {"wire", planner::to_string(instance.wire)},
                    {"stages", std::move(stages)},
                    {"predicted_tokens_per_second", instance.predicted_tokens_per_second},
                    {"measured_tokens_per_second", nullptr},
                    {"waiting_requests", nullptr},
                    {"active_sequences", nullptr},
                    {"advice", JsonArray()}};
  if (measured) {
    for (const std::string& words : figures->advice) object["advice"].as_array().push_back(Json(words));
    if (figures->tokens_per_second > 0) object["measured_tokens_per_second"] = figures->tokens_per_second;
    object["waiting_requests"] = figures->waiting;
    object["active_sequences"] = figures->active;
  }
  return object;
}

JsonObject placement_json(const planner::Placement& placement, const planner::PlanOptions& options,
                          const NodeNames& names) {
  JsonArray stages;
  size_t most_ranks = 1;
  for (const planner::StagePlan& stage : placement.stages) {
    JsonArray ranks;
    for (const planner::RankPlan& rank : stage.ranks)
      ranks.push_back(JsonObject{{"node", rank.node},
                                 {"node_name", name_of(names, rank.node)},
                                 {"share", rank.share_per_mille},
                                 {"memory_bytes", rank.memory_bytes},
                                 {"decode_milliseconds", rank.decode_seconds * 1000}});
    most_ranks = std::max(most_ranks, ranks.size());
    stages.push_back(JsonObject{{"node", stage.node},
                                {"node_name", name_of(names, stage.node)},
                                {"first_layer", stage.first_layer},
                                {"end_layer", stage.end_layer},
                                {"memory_bytes", stage.memory_bytes},
                                {"decode_milliseconds", stage.decode_seconds * 1000},
                                {"sum_milliseconds", stage.all_reduce_seconds * 1000},
                                {"hop_milliseconds", stage.hop_seconds * 1000},
                                {"ranks", std::move(ranks)}});
  }
  const planner::Strategy strategy = most_ranks == 1                ? planner::Strategy::pipeline
                                     : placement.stages.size() == 1 ? planner::Strategy::tensor
                                                                    : planner::Strategy::hybrid;
  JsonArray reasons;
  for (const std::string& reason : placement.reasons) reasons.push_back(Json(reason));
  return {{"strategy", planner::to_string(strategy)},
          {"stages", std::move(stages)},
          {"context_tokens", options.context_tokens},
          {"concurrency", options.concurrency},
          {"wire", planner::to_string(options.wire)},
          {"predicted_tokens_per_second", placement.tokens_per_second},
          {"predicted_batch_tokens_per_second", placement.batch_tokens_per_second},
          {"predicted_first_token_seconds", placement.first_token_seconds},
          {"predicted_bf16_tokens_per_second", placement.bf16_tokens_per_second},
          {"predicted_bf16_first_token_seconds", placement.bf16_first_token_seconds},
          {"reasons", std::move(reasons)}};
}

}  // namespace shoal::serving
