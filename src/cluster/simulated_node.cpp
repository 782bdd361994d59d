#include "cluster/simulated_node.h"

#include <fmt/format.h>

#include "cluster/world.h"

namespace shoal::cluster {
namespace {

NodeFact describe(const NodeId& id, uint64_t memory_bytes) {
  NodeFact fact;
  fact.id = id;
  fact.name = "n" + id.substr(15);
  fact.total_memory_bytes = fact.free_memory_bytes = memory_bytes;
  fact.decode_bytes_per_second = 10e9;
  fact.prefill_flops_per_second = 1e12;
  fact.addresses = {id};  // where fake workers find each other
  fact.models = {{"model", "digest", "fake", memory_bytes}};
  return fact;
}

}  // namespace

SimulatedNode::SimulatedNode(SimulatedWorld& world, NodeId id, uint64_t memory_bytes)
    : world_(world),
      id_(std::move(id)),
      memory_bytes_(memory_bytes),
      bus_(world.network, id_),
      cluster_(bus_, world.network.clock(), *this, describe(id_, memory_bytes),
               [&world] { return world.network.random(); }) {}

void SimulatedNode::start() {
  SHOAL_ASSERT(cluster_.start().has_value());
  tick_later();
}

void SimulatedNode::stop() {
  cluster_.stop();
}

void SimulatedNode::tick_later() {
  world_.network.after(milliseconds(100), [this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    cluster_.tick();
    tick_later();
  });
}

void SimulatedNode::later(Duration delay, const WorkerKey& key, std::function<void(Worker&)> action) {
  world_.network.after(delay, [this, key, action = std::move(action), alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    auto found = workers_.find(key);
    if (found != workers_.end() && !found->second.failed) action(found->second);
  });
}

uint64_t SimulatedNode::free_bytes() const {
  uint64_t used = 0;
  for (const auto& [key, worker] : workers_) used += worker.instance.ranks[key.rank].memory_bytes;
  return memory_bytes_ - used;
}

void SimulatedNode::report_memory() {
  cluster_.update_self([&](NodeFact& fact) { fact.free_memory_bytes = free_bytes(); });
}

void SimulatedNode::start_worker(const InstanceFact& instance, uint32_t rank) {
  WorkerKey key{instance.id, instance.epoch, rank};
  world_.note("{} starts worker {} rank {}", id_, instance.id, rank);
  SHOAL_ASSERT(!workers_.contains(key));
  if (instance.ranks[rank].memory_bytes > free_bytes()) {
    cluster_.worker_failed(instance.id, instance.epoch, rank, {ErrorCode::out_of_memory, "no room", ""});
    return;
  }
  workers_[key].instance = instance;
  report_memory();
  load(key);
}

void SimulatedNode::load(const WorkerKey& key) {
  SimulatedNetwork& network = world_.network;
  Duration time = network.random_duration(milliseconds(20), seconds(4));
  if (workers_.at(key).instance.ranks.size() > 1) {
    later(network.random_duration(milliseconds(1), milliseconds(50)), key, [this, key](Worker& worker) {
      worker.port = world_.next_port++;
      cluster_.worker_listening(key.instance, key.epoch, key.rank, worker.port);
    });
  }
  if (network.chance(world_.faults.hang)) return;
  if (network.chance(world_.faults.fail_loading)) {
    later(time, key, [this, key](Worker&) { fail_worker(key, {ErrorCode::io, "disk gone", ""}); });
    return;
  }
  for (int percent : {25, 50, 75}) {
    later(time * percent / 100, key, [this, key, percent](Worker&) {
      cluster_.worker_progress(key.instance, key.epoch, key.rank, static_cast<float>(percent) / 100);
    });
  }
  later(time, key, [this, key](Worker& worker) {
    worker.loaded = true;
    cluster_.worker_loaded(key.instance, key.epoch, key.rank);
    report_when_ready(key, worker);
  });
}

void SimulatedNode::connect_worker(const std::string& instance, uint32_t epoch, uint32_t rank, uint32_t peer,
                                   const std::vector<std::string>& addresses, uint16_t port) {
  WorkerKey key{instance, epoch, rank};
  SHOAL_ASSERT(addresses.size() == 1);
  later(milliseconds(1), key,
        [this, key, peer, node = addresses[0], port](Worker&) { try_connect(key, peer, node, port, 5); });
}

void SimulatedNode::try_connect(const WorkerKey& key, uint32_t peer, const NodeId& node, uint16_t port,
                                int attempts) {
  SimulatedNode* other = world_.network.reachable(id_, node) ? world_.node(node) : nullptr;
  if (other) {
    for (auto& [other_key, worker] : other->workers_) {
      if (worker.port != port || other_key.instance != key.instance || other_key.epoch != key.epoch) continue;
      SHOAL_ASSERT(other_key.rank == peer);
      worker.callers.insert(key.rank);
      other->report_when_ready(other_key, worker);
      workers_.at(key).called.insert(peer);
      report_when_ready(key, workers_.at(key));
      return;
    }
  }
  if (attempts == 0) return fail_worker(key, {ErrorCode::unavailable, "cannot reach the other rank", ""});
  later(milliseconds(200), key, [=, this](Worker&) { try_connect(key, peer, node, port, attempts - 1); });
}

void SimulatedNode::report_when_ready(const WorkerKey& key, Worker& worker) {
  const RankLinks links = links_of(worker.instance, key.rank);
  if (worker.loaded && worker.called.size() == links.calls.size() &&
      worker.callers.size() == links.called_by.size()) {
    later(Duration(0), key,
          [this, key](Worker&) { cluster_.worker_ready(key.instance, key.epoch, key.rank); });
  }
}

void SimulatedNode::fail_worker(const WorkerKey& key, const Error& error) {
  auto found = workers_.find(key);
  if (found == workers_.end() || found->second.failed) return;
  found->second.failed = true;
  world_.note("{} worker {} rank {} fails: {}", id_, key.instance, key.rank, error.message);
  cluster_.worker_failed(key.instance, key.epoch, key.rank, error);
}

void SimulatedNode::neighbour_lost(const std::string& instance, uint32_t epoch) {
  for (const auto& [key, worker] : workers_) {
    if (key.instance != instance || key.epoch != epoch ||
        (worker.called.empty() && worker.callers.empty()))
      continue;
    later(world_.network.random_duration(Duration(0), milliseconds(50)), key,
          [this, key](Worker&) { fail_worker(key, {ErrorCode::unavailable, "the link broke", ""}); });
  }
}

void SimulatedNode::stop_worker(const std::string& instance, uint32_t epoch, uint32_t rank) {
  auto found = workers_.find({instance, epoch, rank});
  if (found == workers_.end()) return;  // it never started
  world_.note("{} stops worker {} rank {}", id_, instance, rank);
  workers_.erase(found);
  report_memory();
  for (const auto& [id, node] : world_.nodes) {
    if (node && id != id_) node->neighbour_lost(instance, epoch);
  }
}

void SimulatedNode::instance_up(const InstanceFact& instance) {
  world_.note("{} instance {} is up", id_, instance.id);
  SHOAL_ASSERT(!up_.contains(instance.id));
  up_[instance.id] = instance.epoch;
}

void SimulatedNode::instance_down(const std::string& instance, uint32_t epoch, const Error& why) {
  world_.note("{} instance {} is down: {}", id_, instance, why.message);
  SHOAL_ASSERT(up_.contains(instance) && up_[instance] == epoch);
  up_.erase(instance);
}

void SimulatedNode::instance_changed(const std::string& instance, const InstanceFact* fact,
                                     const Error* why) {
  world_.note("{} sees {} {}: {}", id_, instance, fact ? to_string(fact->state) : "vanished",
              why ? why->message : "");
  SHOAL_ASSERT((why != nullptr) == (!fact || !is_live(fact->state)));
}

void SimulatedNode::node_left(const NodeId& node) {
  world_.note("{} sees {} leave", id_, node);
}

}  // namespace shoal::cluster
