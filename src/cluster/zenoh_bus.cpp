#include "cluster/zenoh_bus.h"

#include <deque>
#include <fmt/format.h>
#include <map>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/system.h"
#include "cluster/facts.h"
#include "cluster/local_addresses.h"
#include "cluster/zenoh_session.h"

namespace shoal::cluster {
namespace {

constexpr auto kAskAgain = milliseconds(100);
constexpr size_t kMaxFactBytes = 4 * limits::kMiB;
constexpr size_t kMaxFacts = 1024;  // of one node
constexpr size_t kMaxTopicBytes = 256;
constexpr size_t kMaxEarlyMessages = 1024;
constexpr int kOpenAgain = 8;

struct Message {
  uint64_t sequence = 0;
  std::string topic;
  Bytes payload;
};

Bytes encode(uint64_t sequence, std::string_view topic, ByteView payload) {
  ByteWriter writer;
  writer.write(sequence);
  writer.write_text(topic);
  writer.append(payload);
  return writer.take();
}

Result<Message> decode_message(ByteView bytes) {
  ByteReader reader(bytes);
  Message message;
  SHOAL_TRY(message.sequence, reader.read<uint64_t>());
  SHOAL_TRY(std::string_view topic, reader.read_text(kMaxTopicBytes));
  SHOAL_TRY(ByteView payload, reader.take(reader.remaining()));
  message.topic = topic;
  message.payload.assign(payload.begin(), payload.end());
  return message;
}

struct State {
  std::string cluster;
  std::vector<std::pair<std::string, FactValue>> facts;
};

Result<State> decode_state(ByteView bytes) {
  ByteReader reader(bytes);
  State state;
  SHOAL_TRY(state.cluster, reader.read_text(limits::kMaxControlMessageBytes));
  SHOAL_TRY(uint32_t count, reader.read<uint32_t>());
  if (count > kMaxFacts) return fail(ErrorCode::limit_exceeded, fmt::format("{} facts are too many", count));
  for (uint32_t i = 0; i < count; ++i) {
    SHOAL_TRY(std::string_view name, reader.read_text(kMaxTopicBytes));
    SHOAL_TRY(std::string_view value, reader.read_text(kMaxFactBytes));
    SHOAL_TRY(FactValue fact, FactValue::decode(as_bytes(value)));
    state.facts.emplace_back(name, std::move(fact));
  }
  return state;
}

}  // namespace

// What the event loop knows of the others. Its ZenohListener half runs on Zenoh's threads and only posts to
// the loop. A node counts as joined when its token is alive and it has answered with its state: until then,
// what comes of it is kept, so that the listener hears joined, facts and messages in this order.
class ZenohBus::Peers final : public ZenohListener, public std::enable_shared_from_this<Peers> {
 public:
  Peers(ZenohOptions options, NodeId self, Executor executor)
      : options_(std::move(options)),
        self_{std::move(self), fmt::format("{:016x}", random_u64())},
        executor_(std::move(executor)) {}

  const NodeId& self() const { return self_.node; }

  Result<> start(BusListener& listener) {
    listener_ = &listener;
    Result<> opened = open();
    if (!opened) listener_ = nullptr;
    return opened;
  }

  void stop() {
    listener_ = nullptr;
    session_ = nullptr;
    peers_.clear();
    own_facts_.clear();
  }

  void publish(std::string_view name, std::string_view value, bool present) {
    if (present) own_facts_.insert_or_assign(std::string(name), std::string(value));
    if (!present) own_facts_.erase(std::string(name));
    if (session_) session_->publish(std::string(name), {next_sequence_++, present, std::string(value)});
  }

  void send(const NodeId& receiver, std::string_view topic, ByteView payload) {
    if (!session_) return;
    if (receiver == self_.node) {
      post([this, name = std::string(topic), copy = Bytes(payload.begin(), payload.end())] {
        listener_->on_message(self_.node, name, copy);
      });
      return;
    }
    auto peer = peers_.find(receiver);
    if (peer == peers_.end())
      return;  // it has left: the message is lost, as it might have been a moment later
    session_->send({receiver, peer->second.life}, encode(next_sequence_++, topic, payload));
  }

  // On Zenoh's threads.
  void on_token(const Living& who, bool alive) override {
    post([this, who, alive] { alive ? token_appeared(who) : token_vanished(who); });
  }
  void on_fact(const Living& writer, std::string_view name, ByteView payload) override {
    if (payload.size() > kMaxFactBytes || name.size() > kMaxTopicBytes) return;
    auto fact = FactValue::decode(payload);
    if (!fact) return;
    post(
        [this, writer, name = std::string(name), fact = *std::move(fact)] { hear_fact(writer, name, fact); });
  }
  void on_message(const Living& sender, ByteView payload) override {
    if (payload.size() > limits::kMaxControlMessageBytes) return;
    auto message = decode_message(payload);
    if (!message) return;
    post([this, sender, message = *std::move(message)] { hear_message(sender, message); });
  }
  void on_state(const Living& who, ByteView payload) override {
    auto state = decode_state(payload);
    if (!state) return;
    post([this, who, state = *std::move(state)] { hear_state(who, state); });
  }
  void on_state_asked(const Living& who) override {
    post([this, who] { ask_again(who); });
  }
  void on_new_address() override {
    post([this] { look_anew(); });
  }

 private:
  // Zenoh scouts on the interfaces that were there when its session opened. A session without peers is opened
  // again for new ones (a machine whose network comes up late); one with peers is worth more than those it
  // might find.
  void look_anew() {
    if (!peers_.empty()) return;
    log_info("cluster", "looking for nodes on a new network address");
    session_ = nullptr;
    options_.late_addresses = local_addresses();
    std::erase_if(options_.late_addresses,
                  [](const std::string& address) { return address.find(':') != address.npos; });
    if (auto opened = open(); !opened) {
      log_error("cluster", "{}", opened.error().text());
      return;
    }
    for (const auto& [name, value] : own_facts_) session_->publish(name, {next_sequence_++, true, value});
  }

  Result<> open() {
    Result<> opened = try_open();
    // Nodes that start at the same time may choose the same free port; all but one choose again.
    for (int again = 0; again < kOpenAgain && !opened && opened.error().code == ErrorCode::io; ++again)
      opened = try_open();
    return opened;
  }

  Result<> try_open() {
    SHOAL_TRY(std::string configuration, zenoh_configuration(options_));
    SHOAL_TRY(session_, ZenohSession::open(configuration, options_.cluster, self_, shared_from_this()));
    return {};
  }

  struct Peer {
    Life life;
    bool joined = false;
    std::map<std::string, FactValue> facts;  // heard of; the values only until it joined
    std::deque<Message> early;               // messages that came before it joined
    uint64_t last_message = 0;
  };

  // `action` runs on the loop while the bus is started.
  template <class Action>
  void post(Action action) {
    executor_([weak = weak_from_this(), action = std::move(action)] {
      auto peers = weak.lock();
      if (peers && peers->listener_) action();
    });
  }

  Peer* find(const Living& who) {
    auto found = peers_.find(who.node);
    return found != peers_.end() && found->second.life == who.life ? &found->second : nullptr;
  }

  void token_appeared(const Living& who) {
    if (who == self_ || find(who)) return;
    if (!is_id(who.node) || !is_id(who.life)) return;
    if (who.node == self_.node) {
      log_warning("cluster", "another process says it is this node, {}: do two use the same data directory?",
                  who.node);
      return;
    }
    if (auto old = peers_.find(who.node); old != peers_.end()) token_vanished({who.node, old->second.life});
    if (peers_.size() >= limits::kMaxNodes || !listener_) return;
    peers_[who.node].life = who.life;
    session_->ask_state(who, Duration(0));
  }

  void token_vanished(const Living& who) {
    Peer* peer = find(who);
    if (!peer) return;
    bool joined = peer->joined;
    peers_.erase(who.node);
    if (joined) listener_->on_node_left(who.node);
  }

  void ask_again(const Living& who) {
    Peer* peer = find(who);
    if (peer && !peer->joined) session_->ask_state(who, kAskAgain);
  }

  void hear_state(const Living& who, const State& state) {
    Peer* peer = find(who);
    if (!peer || peer->joined) return;
    if (state.cluster != options_.cluster) {
      log_warning("cluster", "ignored node {} of cluster '{:.60}'", who.node, state.cluster);
      return;
    }
    for (const auto& [name, fact] : state.facts) keep_fact(*peer, name, fact);
    peer->joined = true;
    std::map<std::string, FactValue> facts = peer->facts;
    std::deque<Message> early = std::move(peer->early);
    // The listener may stop us, or the peer may be gone, after any of these.
    listener_->on_node_joined(who.node);
    for (const auto& [name, fact] : facts) {
      if (listener_ && find(who) && fact.present) listener_->on_fact(who.node, name, fact.value);
    }
    for (const Message& message : early) {
      if (listener_ && find(who)) hear_message(who, message);
    }
  }

  // True when it is newer than what was known.
  bool keep_fact(Peer& peer, const std::string& name, const FactValue& fact) {
    auto known = peer.facts.find(name);
    if (known == peer.facts.end() && peer.facts.size() >= kMaxFacts) forget_withdrawn(peer);
    if (known == peer.facts.end() && peer.facts.size() >= kMaxFacts) return false;
    if (known != peer.facts.end() && known->second.sequence >= fact.sequence) return false;
    peer.facts.insert_or_assign(name, FactValue{fact.sequence, fact.present, peer.joined ? "" : fact.value});
    return true;
  }

  // Their names only guard against a late older value, which long gone ones need no more.
  void forget_withdrawn(Peer& peer) {
    std::erase_if(peer.facts, [](const auto& fact) { return !fact.second.present; });
  }

  void hear_fact(const Living& writer, const std::string& name, const FactValue& fact) {
    Peer* peer = find(writer);
    if (!peer || !keep_fact(*peer, name, fact) || !peer->joined) return;
    listener_->on_fact(writer.node, name, fact.present ? std::string_view(fact.value) : std::string_view());
  }

  void hear_message(const Living& sender, const Message& message) {
    Peer* peer = find(sender);
    if (!peer) return;
    if (!peer->joined) {
      if (peer->early.size() < kMaxEarlyMessages) peer->early.push_back(message);
      return;
    }
    if (message.sequence <= peer->last_message) return;
    peer->last_message = message.sequence;
    listener_->on_message(sender.node, message.topic, message.payload);
  }

  ZenohOptions options_;
  const Living self_;
  const Executor executor_;
  BusListener* listener_ = nullptr;  // null: not started
  std::unique_ptr<ZenohSession> session_;
  std::map<NodeId, Peer> peers_;
  std::map<std::string, std::string> own_facts_;
  uint64_t next_sequence_ = 1;
};

ZenohBus::ZenohBus(ZenohOptions options, NodeId self, Executor executor)
    : peers_(std::make_shared<Peers>(std::move(options), std::move(self), std::move(executor))) {}
ZenohBus::~ZenohBus() {
  stop();
}

const NodeId& ZenohBus::self() const {
  return peers_->self();
}
Result<> ZenohBus::start(BusListener& listener) {
  return peers_->start(listener);
}
void ZenohBus::stop() {
  peers_->stop();
}
void ZenohBus::publish(std::string_view name, std::string_view value) {
  peers_->publish(name, value, true);
}
void ZenohBus::withdraw(std::string_view name) {
  peers_->publish(name, "", false);
}
void ZenohBus::send(const NodeId& receiver, std::string_view topic, ByteView payload) {
  peers_->send(receiver, topic, payload);
}

}  // namespace shoal::cluster
