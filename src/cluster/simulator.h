// A network that does not exist: Buses for any number of nodes on virtual time, driven by one seed. Delays,
// duplicates, lost messages, broken connections, partitions and crashes happen as told; what the Bus contract
// promises (bus.h) holds all the same, and nothing more. One thread; every run with the same seed and calls
// is the same.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/clock.h"
#include "cluster/bus.h"

namespace shoal::cluster {

struct SimulatedFaults {
  double lose = 0;                  // chance that a message is lost; a fact is then told again later
  double duplicate = 0;             // chance that something is delivered once more, up to 2 s later
  double slow = 0;                  // chance that a delivery takes up to 500 ms instead of 5 ms
  Duration detection = seconds(3);  // at most this long until silence counts as having left
};

class SimulatedBus;

class SimulatedNetwork {
 public:
  explicit SimulatedNetwork(uint64_t seed) : random_(seed) {}
  SimulatedNetwork(const SimulatedNetwork&) = delete;
  SimulatedNetwork& operator=(const SimulatedNetwork&) = delete;

  const Clock& clock() const { return clock_; }
  TimePoint now() const { return clock_.now(); }
  void set_faults(const SimulatedFaults& faults) { faults_ = faults; }

  uint64_t random() { return random_(); }
  bool chance(double probability) {
    return std::uniform_real_distribution<double>(0, 1)(random_) < probability;
  }
  Duration random_duration(Duration least, Duration most);

  void after(Duration delay, std::function<void()> action);
  bool step();  // the next event; false when there is none
  void run_for(Duration duration);

  bool reachable(const NodeId& a, const NodeId& b) const { return !cut_.contains(std::minmax(a, b)); }
  // Both sides notice by themselves, each after its own time.
  void set_reachable(const NodeId& a, const NodeId& b, bool reachable);
  // The connection breaks and is made anew before anybody counts as gone: messages are lost, facts told
  // again.
  void disturb(const NodeId& a, const NodeId& b);

 private:
  friend class SimulatedBus;
  struct Event {
    TimePoint at;
    uint64_t order;
    std::function<void()> action;
    bool operator>(const Event& other) const { return std::tie(at, order) > std::tie(other.at, other.order); }
  };
  struct Fact {
    uint64_t version = 0;
    std::string value;  // empty: withdrawn
  };
  struct Endpoint {  // a running node
    uint64_t life = 0;
    BusListener* listener = nullptr;
    std::map<std::string, Fact> facts;
  };
  // What `receiver` has been told about `peer`, and the connection between them.
  struct Side {
    bool joined = false;
    uint64_t connection = 0;                // that it joined by
    std::map<std::string, uint64_t> heard;  // fact -> version
    TimePoint last_delivery{};              // deliveries of one connection keep their order
  };
  using Pair = std::pair<NodeId, NodeId>;

  void start(const NodeId& node, BusListener& listener);
  void stop(const NodeId& node, bool crash);
  void publish(const NodeId& node, std::string_view name, std::string_view value);
  void send(const NodeId& sender, const NodeId& receiver, std::string_view topic, ByteView payload);

  void connect(const NodeId& a, const NodeId& b);
  void disconnect(const NodeId& a, const NodeId& b, Duration detection);
  void establish(const NodeId& receiver, const NodeId& peer, uint64_t connection);
  void leave(const NodeId& receiver, const NodeId& peer);
  void tell(const NodeId& receiver, const NodeId& writer, const std::string& name, uint64_t connection);
  void deliver_fact(const NodeId& receiver, const NodeId& writer, const std::string& name, const Fact& fact,
                    uint64_t connection);
  void deliver_message(const NodeId& receiver, const NodeId& sender, const std::string& topic,
                       const Bytes& payload, uint64_t connection);
  uint64_t connection(const NodeId& a, const NodeId& b) const;  // 0: none
  bool hears(const NodeId& receiver, const NodeId& peer, uint64_t connection) const;
  Duration delay();
  Duration ordered_delay(Side& side);

  ManualClock clock_;
  std::mt19937_64 random_;
  SimulatedFaults faults_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  uint64_t next_order_ = 1, next_life_ = 1, next_connection_ = 1, next_version_ = 1;
  std::map<NodeId, Endpoint> endpoints_;
  std::set<Pair> cut_;                    // ordered pairs that cannot reach each other
  std::map<Pair, uint64_t> connections_;  // ordered pairs that are connected now
  std::map<Pair, Side> sides_;            // (receiver, peer)
};

// One node's door to the network. Destroying it while it runs is a crash.
class SimulatedBus final : public Bus {
 public:
  SimulatedBus(SimulatedNetwork& network, NodeId self) : network_(network), self_(std::move(self)) {}
  ~SimulatedBus() override {
    if (running_) network_.stop(self_, true);
  }

  const NodeId& self() const override { return self_; }
  Result<> start(BusListener& listener) override;
  void stop() override;
  void publish(std::string_view name, std::string_view value) override;
  void withdraw(std::string_view name) override { publish(name, ""); }
  void send(const NodeId& receiver, std::string_view topic, ByteView payload) override;

 private:
  SimulatedNetwork& network_;
  NodeId self_;
  bool running_ = false;
};

}  // namespace shoal::cluster
