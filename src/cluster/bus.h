// The control plane as the cluster sees it: who is here, what each node says of itself (facts), and messages
// between two nodes. Two implementations: Zenoh (cluster/zenoh_bus.h) and the simulator
// (cluster/simulator.h).
//
// Facts are single-writer last values: a node publishes its own, everyone hears of them, and a node that
// joins later is told all that hold. Messages between two nodes arrive in order or, when the connection
// breaks, not at all; the receiver must not assume that the sender still lives. Everything may be delivered
// twice or late.
//
// What an implementation owes its listener:
// - Nothing of a node is heard before it joined or after it left; leaving voids its facts (no on_fact for
// each), and
//   joining again tells all that hold by then. A restarted node is heard to leave and then to join.
// - A fact's values come in the order of writing: some may be skipped and the last repeated, but an older one
// never
//   follows a newer one, and while two nodes are connected the last one arrives.
// - A node does not join or leave itself, and its own facts do not come back to it.
// - A message is for the life of the receiver that the sender knew: it never reaches the same node restarted.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace shoal::cluster {

using NodeId = std::string;  // 16 hex digits, drawn at random when a data directory is first used

class BusListener {
 public:
  virtual ~BusListener() = default;
  virtual void on_node_joined(const NodeId& node) = 0;
  virtual void on_node_left(const NodeId& node) = 0;
  // An empty value means that the writer withdrew the fact.
  virtual void on_fact(const NodeId& writer, std::string_view name, std::string_view value) = 0;
  virtual void on_message(const NodeId& sender, std::string_view topic, ByteView payload) = 0;
};

// All calls and all callbacks happen on the driver's thread; a callback may call back into the Bus.
class Bus {
 public:
  virtual ~Bus() = default;
  virtual const NodeId& self() const = 0;
  virtual Result<> start(BusListener& listener) = 0;  // joins the cluster
  virtual void stop() = 0;                            // leaves; no callback after it returns
  virtual void publish(std::string_view name, std::string_view value) = 0;  // our own fact
  virtual void withdraw(std::string_view name) = 0;
  virtual void send(const NodeId& receiver, std::string_view topic,
                    ByteView payload) = 0;  // may be our own id
};

}  // namespace shoal::cluster
