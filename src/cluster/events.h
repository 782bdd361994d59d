// What the reducer hears and what it wants done: the whole vocabulary between the pure heart of the cluster
// and the driver around it (cluster.h). Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/facts.h"
#include "cluster/place_request.h"

namespace shoal::cluster {

using CallId = uint64_t;  // of a place() or stop_instance() that waits for its end; drawn by the driver

// One rank of one generation of an instance's world.
struct WorkerKey {
  std::string instance;
  uint32_t epoch = 0;
  uint32_t rank = 0;

  auto operator<=>(const WorkerKey&) const = default;
};

// Events.
struct Started {};  // the bus runs
struct Tick {};
struct NodeJoined {
  NodeId node;
};
struct NodeLeft {
  NodeId node;
};
struct FactHeard {
  NodeId writer;
  std::string name, value;
};
struct MessageHeard {
  NodeId sender;
  std::string topic, payload;
};
struct WorkerReported {
  WorkerKey worker;
  WorkerState state = WorkerState::starting;
  std::optional<float> progress;
  std::optional<uint16_t> port;
  std::optional<Error> error;
};
struct SelfChanged {
  NodeFact fact;  // id and workers are ignored
};
struct PlaceAsked {
  CallId call = 0;
  PlaceRequest request;
  std::string instance;  // a fresh id
  std::string secret;
};
struct StopAsked {
  CallId call = 0;
  std::string instance;
};
struct Leaving {};  // the driver is about to leave the bus

using Event = std::variant<Started, Tick, NodeJoined, NodeLeft, FactHeard, MessageHeard, WorkerReported,
                           SelfChanged, PlaceAsked, StopAsked, Leaving>;

// Actions.
struct PublishFact {
  std::string name, value;
};
struct WithdrawFact {
  std::string name;
};
struct SendMessage {
  NodeId receiver;
  std::string topic, payload;
};
struct StartWorker {
  InstanceFact instance;
  uint32_t rank = 0;
};
struct ConnectWorker {  // once for each rank that it calls
  WorkerKey worker;
  uint32_t peer = 0;                   // the rank that is called
  std::vector<std::string> addresses;  // of its node
  uint16_t port = 0;
};
struct StopWorker {
  WorkerKey worker;
};
struct InstanceUp {
  InstanceFact instance;
};
struct InstanceDown {
  std::string instance;
  uint32_t epoch = 0;
  Error why;
};
struct InstanceChanged {
  std::string instance;
  std::optional<InstanceFact> fact;  // nullopt: vanished
  std::optional<Error> why;
};
struct NodeGone {
  NodeId node;
};
struct PlaceDone {
  CallId call = 0;
  Result<InstanceFact> result;
};
struct StopDone {
  CallId call = 0;
  Result<> result;
};

using Action = std::variant<PublishFact, WithdrawFact, SendMessage, StartWorker, ConnectWorker, StopWorker,
                            InstanceUp, InstanceDown, InstanceChanged, NodeGone, PlaceDone, StopDone>;
using Actions = std::vector<Action>;

// Topics of the reducer's own messages.
inline constexpr std::string_view kPlaceTopic = "cluster/place";  // an InstanceFact the receiver shall own
inline constexpr std::string_view kRefusedTopic = "cluster/refused";  // {"instance", "error"}: it will not
inline constexpr std::string_view kStopTopic = "cluster/stop";        // {"instance"}: its owner shall stop it

}  // namespace shoal::cluster
