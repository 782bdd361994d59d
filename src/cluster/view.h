// What one node knows of the cluster: who is here, what each says of itself, which instances are owned by
// whom. Plain data with look-ups; the reducer's parts (worker_host.h, instance_owner.h, waiters.h) read it
// and write only what is our own.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/facts.h"
#include "cluster/place_request.h"

namespace shoal::cluster {

struct Member {
  std::optional<NodeFact> fact;                   // nullopt until it arrived
  std::map<std::string, InstanceFact> instances;  // by id: those it says it owns
};

class View {
 public:
  explicit View(NodeFact self);

  const NodeId& self_id() const { return self_id_; }
  NodeFact& self() { return *members_.at(self_id_).fact; }
  const NodeFact& self() const { return *members_.at(self_id_).fact; }
  std::map<std::string, InstanceFact>& own_instances() { return members_.at(self_id_).instances; }
  const std::map<std::string, InstanceFact>& own_instances() const { return members_.at(self_id_).instances; }

  bool is_member(const NodeId& node) const { return members_.contains(node); }
  const std::map<NodeId, Member>& members() const { return members_; }
  void join(const NodeId& node) { members_.try_emplace(node); }
  void leave(const NodeId& node) { members_.erase(node); }
  // Takes a fact of another node; bytes that break their format are logged and dropped.
  void hear_fact(const NodeId& writer, std::string_view name, std::string_view value);

  const NodeFact* node(const NodeId& node) const;  // nullptr: not here or not heard yet
  const WorkerFact* worker(const NodeId& node, const std::string& instance, uint32_t epoch,
                           uint32_t rank) const;
  // Of those that claim this id, the one of the highest (epoch, owner).
  const InstanceFact* instance(const std::string& id) const;
  const InstanceFact* instance_of(const NodeId& owner, const std::string& id) const;
  std::map<std::string, const InstanceFact*> instances() const;  // by id
  // Ready ones first, then loading ones; one that ended is found by its id alone.
  const InstanceFact* find_instance(std::string_view id_or_model) const;
  // For people: the node's name, also shortly after it left; its id when it never told one.
  std::string name_of(const NodeId& node) const;

  // The nodes as the planner sees them, ourselves first. Memory that a loading instance will take counts as
  // taken.
  std::vector<planner::Device> devices(const PlaceRequest& request) const;

 private:
  uint64_t promised_bytes(const NodeFact& node,
                          const std::map<std::string, const InstanceFact*>& instances) const;

  NodeId self_id_;
  std::map<NodeId, Member> members_;
  std::map<NodeId, std::string> names_;
};

}  // namespace shoal::cluster
