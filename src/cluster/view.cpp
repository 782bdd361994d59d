#include "cluster/view.h"

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "cluster/planner_input.h"

namespace shoal::cluster {
namespace {

constexpr size_t kMaxFactBytes = 4 * limits::kMiB;
constexpr size_t kMaxInstancesOfOneNode = 256;
constexpr size_t kMaxRememberedNames = 1024;

std::pair<uint32_t, const NodeId&> precedence(const InstanceFact& fact) {
  return {fact.epoch, fact.owner};
}

Result<InstanceFact> decode_instance(const NodeId& writer, std::string_view id, std::string_view value) {
  SHOAL_TRY(JsonObject object, parse_json_object(value, "an instance fact"));
  SHOAL_TRY(InstanceFact fact, instance_fact_from_json(object));
  if (fact.owner != writer || fact.id != id) {
    return fail(ErrorCode::malformed, "an instance fact names another owner or id than it came with");
  }
  return fact;
}

Result<NodeFact> decode_node(const NodeId& writer, std::string_view value) {
  SHOAL_TRY(JsonObject object, parse_json_object(value, "a node fact"));
  SHOAL_TRY(NodeFact fact, node_fact_from_json(object));
  if (fact.id != writer)
    return fail(ErrorCode::malformed, "a node fact names another node than it came from");
  return fact;
}

}  // namespace

View::View(NodeFact self) : self_id_(self.id) {
  names_[self_id_] = self.name;
  members_[self_id_].fact = std::move(self);
}

void View::hear_fact(const NodeId& writer, std::string_view name, std::string_view value) {
  auto member = members_.find(writer);
  if (writer == self_id_ || member == members_.end()) return;
  auto dropped = [&](const Error& error) {
    log_warning("cluster", "dropped a fact of {}: {}", writer, error.message);
  };
  if (value.size() > kMaxFactBytes) return dropped({ErrorCode::limit_exceeded, "larger than 4 MiB", ""});
  if (name == "node" && !value.empty()) {
    auto fact = decode_node(writer, value);
    if (!fact) return dropped(fact.error());
    if (names_.size() >= kMaxRememberedNames) names_.clear();
    names_[writer] = fact->name;
    member->second.fact = *std::move(fact);
  } else if (name.starts_with("instance/")) {
    std::string id(name.substr(name.find('/') + 1));
    auto& instances = member->second.instances;
    if (value.empty()) {
      instances.erase(id);
      return;
    }
    auto fact = decode_instance(writer, id, value);
    if (!fact) return dropped(fact.error());
    auto known = instances.find(id);
    if (known == instances.end() && instances.size() >= kMaxInstancesOfOneNode) {
      return dropped({ErrorCode::limit_exceeded, "it owns more than 256 instances", ""});
    }
    if (known != instances.end() && known->second.epoch > fact->epoch) return;
    instances.insert_or_assign(id, *std::move(fact));
  }
}

const NodeFact* View::node(const NodeId& node) const {
  auto found = members_.find(node);
  return found != members_.end() && found->second.fact ? &*found->second.fact : nullptr;
}

const WorkerFact* View::worker(const NodeId& where, const std::string& instance, uint32_t epoch,
                               uint32_t rank) const {
  const NodeFact* fact = node(where);
  if (!fact) return nullptr;
  for (const WorkerFact& worker : fact->workers) {
    if (worker.instance == instance && worker.epoch == epoch && worker.rank == rank) return &worker;
  }
  return nullptr;
}

const InstanceFact* View::instance(const std::string& id) const {
  const InstanceFact* best = nullptr;
  for (const auto& [node, member] : members_) {
    auto found = member.instances.find(id);
    if (found == member.instances.end()) continue;
    if (!best || precedence(found->second) > precedence(*best)) best = &found->second;
  }
  return best;
}

const InstanceFact* View::instance_of(const NodeId& owner, const std::string& id) const {
  auto member = members_.find(owner);
  if (member == members_.end()) return nullptr;
  auto found = member->second.instances.find(id);
  return found == member->second.instances.end() ? nullptr : &found->second;
}

std::map<std::string, const InstanceFact*> View::instances() const {
  std::map<std::string, const InstanceFact*> all;
  for (const auto& [node, member] : members_) {
    for (const auto& [id, fact] : member.instances) {
      const InstanceFact*& best = all[id];
      if (!best || precedence(fact) > precedence(*best)) best = &fact;
    }
  }
  return all;
}

const InstanceFact* View::find_instance(std::string_view id_or_model) const {
  const InstanceFact* found = nullptr;
  for (const auto& [id, fact] : instances()) {
    if (id == id_or_model) return fact;
    if (fact->model != id_or_model || !is_live(fact->state)) continue;
    if (!found || (found->state == InstanceState::loading && fact->state == InstanceState::ready))
      found = fact;
  }
  return found;
}

std::string View::name_of(const NodeId& id) const {
  if (const NodeFact* fact = node(id); fact && !fact->name.empty()) return fact->name;
  auto found = names_.find(id);
  return found != names_.end() && !found->second.empty() ? found->second : id;
}

uint64_t View::promised_bytes(const NodeFact& node,
                              const std::map<std::string, const InstanceFact*>& instances) const {
  uint64_t bytes = 0;
  for (const auto& [id, fact] : instances) {
    if (fact->state != InstanceState::loading) continue;
    for (uint32_t rank = 0; rank < fact->ranks.size(); ++rank) {
      const RankFact& stage = fact->ranks[rank];
      if (stage.node != node.id || worker(node.id, id, fact->epoch, rank)) continue;
      bytes += std::min(stage.memory_bytes, UINT64_MAX - bytes);
    }
  }
  return bytes;
}

std::vector<planner::Device> View::devices(const PlaceRequest& request) const {
  auto all = instances();
  std::vector<planner::Device> devices;
  for (const auto& [id, member] : members_) {
    if (!member.fact) continue;
    const NodeFact& fact = *member.fact;
    auto held = [&](const HeldModel& model) {
      return request.digest.empty() ? model.name == request.model : model.digest == request.digest;
    };
    uint64_t promised = promised_bytes(fact, all);
    const WeightRate rate = rate_with(fact, request.weights);
    planner::Device device{fact.id,
                           name_of(fact.id),
                           fact.free_memory_bytes - std::min(promised, fact.free_memory_bytes),
                           rate.decode_bytes_per_second,
                           rate.prefill_flops_per_second,
                           std::any_of(fact.models.begin(), fact.models.end(), held),
                           fact.cores};
    devices.insert(id == self_id_ ? devices.begin() : devices.end(), std::move(device));
  }
  return devices;
}

}  // namespace shoal::cluster
