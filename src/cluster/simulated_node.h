// A node for tests of the cluster: a Cluster on a simulated network, and workers that only pretend. They take
// memory, load for a random while, listen, connect to each other, and fail when told or by chance.
#pragma once

#include <fmt/format.h>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/assert.h"
#include "cluster/cluster.h"
#include "cluster/events.h"
#include "cluster/simulator.h"

namespace shoal::cluster {

struct FakeWorkerFaults {
  double fail_loading = 0;  // chance that a worker fails while it loads
  double hang = 0;          // chance that it never gets loaded
};

class SimulatedNode;

// All nodes that ever ran, so that fake workers find each other.
struct SimulatedWorld {
  explicit SimulatedWorld(uint64_t seed) : network(seed) {}

  SimulatedNetwork network;
  FakeWorkerFaults faults;
  std::map<NodeId, std::unique_ptr<SimulatedNode>> nodes;  // null: not running
  std::vector<std::string> trace;
  uint16_t next_port = 1000;

  SimulatedNode* node(const NodeId& id) {
    auto found = nodes.find(id);
    return found == nodes.end() ? nullptr : found->second.get();
  }
  template <class... Arguments>
  void note(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    trace.push_back(fmt::format("{:10.4f} ", to_seconds(network.now().time_since_epoch())) +
                    fmt::format(format, std::forward<Arguments>(arguments)...));
  }
};

class SimulatedNode final : public WorldEffects {
 public:
  SimulatedNode(SimulatedWorld& world, NodeId id, uint64_t memory_bytes);
  ~SimulatedNode() override = default;  // a crash, unless stopped before

  void start();
  void stop();

  struct Worker {
    InstanceFact instance;
    uint16_t port = 0;
    std::set<uint32_t> callers = {}, called = {};  // ranks that it has a Link from and to
    bool loaded = false, failed = false;
  };

  Cluster& cluster() { return cluster_; }
  const NodeId& id() const { return id_; }
  uint64_t memory_bytes() const { return memory_bytes_; }
  uint64_t free_bytes() const;
  const std::map<WorkerKey, Worker>& workers() const { return workers_; }
  const std::map<std::string, uint32_t>& up() const { return up_; }  // instance -> epoch, as owner
  void fail_worker(const WorkerKey& key, const Error& error);
  // The Link to a worker of another node broke: the rank here fails, too.
  void neighbour_lost(const std::string& instance, uint32_t epoch);

  void start_worker(const InstanceFact& instance, uint32_t rank) override;
  void connect_worker(const std::string& instance, uint32_t epoch, uint32_t rank, uint32_t peer,
                      const std::vector<std::string>& addresses, uint16_t port) override;
  void stop_worker(const std::string& instance, uint32_t epoch, uint32_t rank) override;
  void instance_up(const InstanceFact& instance) override;
  void instance_down(const std::string& instance, uint32_t epoch, const Error& why) override;
  void instance_changed(const std::string& instance, const InstanceFact* fact, const Error* why) override;
  void node_left(const NodeId& node) override;

 private:
  // Runs `action` later if this node and this worker still live then.
  void later(Duration delay, const WorkerKey& key, std::function<void(Worker&)> action);
  void load(const WorkerKey& key);
  void try_connect(const WorkerKey& key, uint32_t peer, const NodeId& node, uint16_t port, int attempts);
  void report_when_ready(const WorkerKey& key, Worker& worker);
  void tick_later();
  void report_memory();

  SimulatedWorld& world_;
  NodeId id_;
  uint64_t memory_bytes_;
  SimulatedBus bus_;
  Cluster cluster_;
  std::map<WorkerKey, Worker> workers_;
  std::map<std::string, uint32_t> up_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace shoal::cluster
