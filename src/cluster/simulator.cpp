#include "cluster/simulator.h"

#include <algorithm>

#include "base/assert.h"

namespace shoal::cluster {

Duration SimulatedNetwork::random_duration(Duration least, Duration most) {
  return Duration(std::uniform_int_distribution<int64_t>(least.count(), most.count())(random_));
}

void SimulatedNetwork::after(Duration delay, std::function<void()> action) {
  events_.push({now() + delay, next_order_++, std::move(action)});
}

bool SimulatedNetwork::step() {
  if (events_.empty()) return false;
  Event event = events_.top();
  events_.pop();
  clock_.advance(event.at - now());
  event.action();
  return true;
}

void SimulatedNetwork::run_for(Duration duration) {
  TimePoint end = now() + duration;
  while (!events_.empty() && events_.top().at <= end) step();
  clock_.advance(end - now());
}

uint64_t SimulatedNetwork::connection(const NodeId& a, const NodeId& b) const {
  auto found = connections_.find(std::minmax(a, b));
  return found == connections_.end() ? 0 : found->second;
}

bool SimulatedNetwork::hears(const NodeId& receiver, const NodeId& peer, uint64_t over) const {
  auto side = sides_.find({receiver, peer});
  return side != sides_.end() && side->second.joined && side->second.connection == over &&
         connection(receiver, peer) == over;
}

Duration SimulatedNetwork::delay() {
  return random_duration(microseconds(50), chance(faults_.slow) ? milliseconds(500) : milliseconds(5));
}

Duration SimulatedNetwork::ordered_delay(Side& side) {
  side.last_delivery = std::max(side.last_delivery, now() + delay());
  return side.last_delivery - now();
}

void SimulatedNetwork::start(const NodeId& node, BusListener& listener) {
  SHOAL_ASSERT(!endpoints_.contains(node));
  endpoints_[node] = {next_life_++, &listener, {}};
  for (const auto& [other, endpoint] : endpoints_) {
    if (other != node) connect(node, other);
  }
}

void SimulatedNetwork::stop(const NodeId& node, bool crash) {
  endpoints_.erase(node);
  for (const auto& [other, endpoint] : endpoints_)
    disconnect(node, other, crash ? faults_.detection : milliseconds(20));
  std::erase_if(sides_, [&](const auto& side) { return side.first.first == node; });
}

void SimulatedNetwork::set_reachable(const NodeId& a, const NodeId& b, bool reachable) {
  if (!reachable && cut_.insert(std::minmax(a, b)).second) disconnect(a, b, faults_.detection);
  if (reachable && cut_.erase(std::minmax(a, b)) > 0) connect(a, b);
}

void SimulatedNetwork::disturb(const NodeId& a, const NodeId& b) {
  if (connection(a, b) == 0) return;
  uint64_t over = connections_[std::minmax(a, b)] = next_connection_++;
  for (auto [receiver, peer] : {Pair{a, b}, Pair{b, a}}) {
    Side& side = sides_[{receiver, peer}];
    if (!side.joined) {
      after(delay(), [this, receiver, peer, over] { establish(receiver, peer, over); });
      continue;
    }
    side.connection = over;
    for (const auto& [name, fact] : endpoints_.at(peer).facts) tell(receiver, peer, name, over);
  }
}

void SimulatedNetwork::connect(const NodeId& a, const NodeId& b) {
  if (!endpoints_.contains(a) || !endpoints_.contains(b) || !reachable(a, b)) return;
  uint64_t over = connections_[std::minmax(a, b)] = next_connection_++;
  for (auto [receiver, peer] : {Pair{a, b}, Pair{b, a}}) {
    after(random_duration(milliseconds(1), milliseconds(600)),
          [this, receiver, peer, over] { establish(receiver, peer, over); });
  }
}

void SimulatedNetwork::disconnect(const NodeId& a, const NodeId& b, Duration detection) {
  if (connections_.erase(std::minmax(a, b)) == 0) return;
  for (auto [receiver, peer] : {Pair{a, b}, Pair{b, a}}) {
    uint64_t over = sides_[{receiver, peer}].connection;
    after(random_duration(Duration(0), detection), [this, receiver, peer, over] {
      auto side = sides_.find({receiver, peer});
      if (side != sides_.end() && side->second.connection == over) leave(receiver, peer);
    });
  }
}

void SimulatedNetwork::leave(const NodeId& receiver, const NodeId& peer) {
  Side& side = sides_[{receiver, peer}];
  if (!side.joined) return;
  side = Side{};
  endpoints_.at(receiver).listener->on_node_left(peer);
}

void SimulatedNetwork::establish(const NodeId& receiver, const NodeId& peer, uint64_t over) {
  if (connection(receiver, peer) != over) return;
  leave(receiver, peer);  // an earlier connection whose end it had not noticed
  sides_[{receiver, peer}] = {true, over, {}, now()};
  endpoints_.at(receiver).listener->on_node_joined(peer);
  if (!hears(receiver, peer, over)) return;
  for (const auto& [name, fact] : endpoints_.at(peer).facts) tell(receiver, peer, name, over);
}

// The value that holds now, delivered a little later; when it is lost on the way, once more with the value of
// then.
void SimulatedNetwork::tell(const NodeId& receiver, const NodeId& writer, const std::string& name,
                            uint64_t over) {
  if (connection(receiver, writer) != over) return;
  auto again = [=, this] { tell(receiver, writer, name, over); };
  if (chance(faults_.lose)) return after(random_duration(milliseconds(5), seconds(1)), again);
  if (chance(faults_.duplicate)) after(random_duration(milliseconds(1), seconds(2)), again);
  const Fact& fact = endpoints_.at(writer).facts.at(name);
  after(ordered_delay(sides_[{receiver, writer}]),
        [=, this] { deliver_fact(receiver, writer, name, fact, over); });
}

void SimulatedNetwork::deliver_fact(const NodeId& receiver, const NodeId& writer, const std::string& name,
                                    const Fact& fact, uint64_t over) {
  if (!hears(receiver, writer, over)) return;
  uint64_t& heard = sides_[{receiver, writer}].heard[name];
  if (fact.version < heard) return;
  heard = fact.version;
  endpoints_.at(receiver).listener->on_fact(writer, name, fact.value);
}

void SimulatedNetwork::publish(const NodeId& node, std::string_view name, std::string_view value) {
  endpoints_.at(node).facts[std::string(name)] = {next_version_++, std::string(value)};
  for (const auto& [other, endpoint] : endpoints_) {
    uint64_t over = other == node ? 0 : connection(node, other);
    if (over != 0 && hears(other, node, over)) tell(other, node, std::string(name), over);
  }
}

void SimulatedNetwork::send(const NodeId& sender, const NodeId& receiver, std::string_view topic,
                            ByteView payload) {
  Bytes copy(payload.begin(), payload.end());
  if (receiver == sender) {
    uint64_t life = endpoints_.at(sender).life;
    after(Duration(0), [=, this, name = std::string(topic)] {
      auto endpoint = endpoints_.find(sender);
      if (endpoint != endpoints_.end() && endpoint->second.life == life) {
        endpoint->second.listener->on_message(sender, name, copy);
      }
    });
    return;
  }
  uint64_t over = connection(sender, receiver);
  if (over == 0 || chance(faults_.lose)) return;
  auto deliver = [=, this, name = std::string(topic)] {
    deliver_message(receiver, sender, name, copy, over);
  };
  if (chance(faults_.duplicate)) after(random_duration(milliseconds(1), seconds(2)), deliver);
  after(ordered_delay(sides_[{receiver, sender}]), deliver);
}

void SimulatedNetwork::deliver_message(const NodeId& receiver, const NodeId& sender, const std::string& topic,
                                       const Bytes& payload, uint64_t over) {
  if (hears(receiver, sender, over)) endpoints_.at(receiver).listener->on_message(sender, topic, payload);
}

Result<> SimulatedBus::start(BusListener& listener) {
  network_.start(self_, listener);
  running_ = true;
  return {};
}

void SimulatedBus::stop() {
  if (!running_) return;
  running_ = false;
  network_.stop(self_, false);
}

void SimulatedBus::publish(std::string_view name, std::string_view value) {
  if (running_) network_.publish(self_, name, value);
}

void SimulatedBus::send(const NodeId& receiver, std::string_view topic, ByteView payload) {
  if (running_) network_.send(self_, receiver, topic, payload);
}

}  // namespace shoal::cluster
