// The cluster as one node sees it: a thin driver around the pure reducer (cluster/reducer.h). It feeds bus
// events, ticks and worker events in, and carries actions out: publishing facts through the Bus, and worker
// work through WorldEffects, which the node implements. One thread: the node's event loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/system.h"
#include "cluster/bus.h"
#include "cluster/facts.h"
#include "cluster/place_request.h"
#include "cluster/planner_input.h"
#include "planner/planner.h"

namespace shoal::cluster {

// What the reducer wants done on this node. Each call is idempotent for its (instance, epoch, rank).
class WorldEffects {
 public:
  virtual ~WorldEffects() = default;
  virtual void start_worker(const InstanceFact& instance, uint32_t rank) = 0;
  // `peer`: a rank that this one is to call, with its node's addresses.
  virtual void connect_worker(const std::string& instance, uint32_t epoch, uint32_t rank, uint32_t peer,
                              const std::vector<std::string>& addresses, uint16_t port) = 0;
  virtual void stop_worker(const std::string& instance, uint32_t epoch, uint32_t rank) = 0;
  // The owner's world is complete, or not any more. `instance_down` carries why (typed, for the clients) and
  // comes only after `instance_up`.
  virtual void instance_up(const InstanceFact& instance) = 0;
  virtual void instance_down(const std::string& instance, uint32_t epoch, const Error& why) = 0;
  // Any instance in the cluster changed or vanished (nullptr); gateways fail requests that its owner took
  // along. `why` is set when it failed, stopped or vanished.
  virtual void instance_changed(const std::string& instance, const InstanceFact* fact, const Error* why) = 0;
  virtual void node_left(const NodeId& node) = 0;
};

class Cluster final : private BusListener {
 public:
  // `random` draws ids and secrets; the operating system's generator unless a test needs to repeat itself.
  Cluster(Bus& bus, const Clock& clock, WorldEffects& effects, NodeFact self,
          std::function<uint64_t()> random = random_u64);
  ~Cluster() override;

  Result<> start();
  // Leaves for good: stops our workers and ends every pending call with `cancelled`.
  void stop();
  void tick();  // at least every 100 ms

  // Changes to our own report: free memory, models held, measured figures. Its id and workers are not the
  // caller's.
  void update_self(const std::function<void(NodeFact&)>& change);

  void worker_listening(const std::string& instance, uint32_t epoch, uint32_t rank, uint16_t port);
  void worker_progress(const std::string& instance, uint32_t epoch, uint32_t rank, float fraction);
  void worker_loaded(const std::string& instance, uint32_t epoch, uint32_t rank);
  void worker_ready(const std::string& instance, uint32_t epoch, uint32_t rank);
  void worker_failed(const std::string& instance, uint32_t epoch, uint32_t rank, const Error& error);

  // The nodes that are here now and their links, as plans for this model see them.
  PlannerInput planner_input(const PlaceRequest& request) const;
  // Ranked placements for the nodes that are here now and hold the model.
  Result<std::vector<planner::Placement>> preview(const PlaceRequest& request) const;
  // Plans, becomes the owner (the node of stage 0 is asked to own it when that is another node) and starts
  // loading. `done` is called once: with the instance when it is ready, or with the Error that ended it.
  void place(const PlaceRequest& request, std::function<void(Result<InstanceFact>)> done);
  void stop_instance(const std::string& instance, std::function<void(Result<>)> done);

  const NodeFact& self() const;
  std::vector<NodeFact> nodes() const;              // alive, ourselves first, then by name
  std::string node_name(const NodeId& node) const;  // for people; see View::name_of
  std::vector<InstanceFact> instances() const;
  const InstanceFact* find_instance(std::string_view id_or_model) const;  // ready ones first

  // Node-to-node messages of serving; cluster's own topics start with "cluster/".
  void send(const NodeId& receiver, std::string_view topic, ByteView payload);
  using MessageHandler = std::function<void(const NodeId& sender, ByteView payload)>;
  void on_topic(std::string topic, MessageHandler handler);

 private:
  void on_node_joined(const NodeId& node) override;
  void on_node_left(const NodeId& node) override;
  void on_fact(const NodeId& writer, std::string_view name, std::string_view value) override;
  void on_message(const NodeId& sender, std::string_view topic, ByteView payload) override;

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal::cluster
