// For tests: a Bus of nodes in one process, and workers that compute nothing but keep to the protocol.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "cluster/bus.h"
#include "scheduler/fake_world.h"
#include "serving/workers.h"

namespace shoal::serving {

// Delivers through the loop, in order; a node that was cut off hears nothing and the others see it leave.
class FakeNetwork {
 public:
  explicit FakeNetwork(boost::asio::io_context& io) : io_(io) {}

  class Port final : public cluster::Bus {
   public:
    Port(FakeNetwork& network, cluster::NodeId id) : network_(network), id_(std::move(id)) {}
    ~Port() override { stop(); }
    const cluster::NodeId& self() const override { return id_; }
    Result<> start(cluster::BusListener& listener) override {
      network_.join(*this, listener);
      return {};
    }
    void stop() override { network_.leave(id_); }
    void publish(std::string_view name, std::string_view value) override {
      network_.publish(id_, name, value);
    }
    void withdraw(std::string_view name) override { network_.publish(id_, name, ""); }
    void send(const cluster::NodeId& receiver, std::string_view topic, ByteView payload) override {
      network_.send(id_, receiver, topic, payload);
    }

   private:
    FakeNetwork& network_;
    cluster::NodeId id_;
  };

  // The node is gone for all others, and all others for it, without a word.
  void cut(const cluster::NodeId& node) {
    cut_.insert(node);
    for (const auto& [id, listener] : listeners_) {
      if (id == node) continue;
      post(id, [node](cluster::BusListener& to) { to.on_node_left(node); });
    }
  }
  std::set<std::string> dropped_topics;  // messages of these are lost
  bool twice = false;                    // every message arrives twice

 private:
  template <class Call>
  void post(const cluster::NodeId& receiver, Call call) {
    boost::asio::post(io_, [this, receiver, call = std::move(call)] {
      const auto listener = listeners_.find(receiver);
      if (listener != listeners_.end()) call(*listener->second);
    });
  }
  void join(Port& port, cluster::BusListener& listener) {
    const cluster::NodeId id = port.self();
    for (const auto& [other, other_listener] : listeners_) {
      post(other, [id](cluster::BusListener& to) { to.on_node_joined(id); });
      post(id, [other](cluster::BusListener& to) { to.on_node_joined(other); });
    }
    listeners_[id] = &listener;
    for (const auto& [key, value] : facts_)
      post(id, [key, value](cluster::BusListener& to) { to.on_fact(key.first, key.second, value); });
  }
  void leave(const cluster::NodeId& id) {
    if (listeners_.erase(id) == 0) return;
    std::erase_if(facts_, [&](const auto& fact) { return fact.first.first == id; });
    for (const auto& [other, listener] : listeners_)
      post(other, [id](cluster::BusListener& to) { to.on_node_left(id); });
  }
  void publish(const cluster::NodeId& writer, std::string_view name, std::string_view value) {
    if (cut_.contains(writer)) return;
    facts_[{writer, std::string(name)}] = std::string(value);
    for (const auto& [id, listener] : listeners_) {
      if (cut_.contains(id) || id == writer) continue;
      post(id, [writer, name = std::string(name), value = std::string(value)](cluster::BusListener& to) {
        to.on_fact(writer, name, value);
      });
    }
  }
  void send(const cluster::NodeId& sender, const cluster::NodeId& receiver, std::string_view topic,
            ByteView payload) {
    if (cut_.contains(sender) || cut_.contains(receiver) || dropped_topics.contains(std::string(topic)))
      return;
    for (int copy = 0; copy < (twice ? 2 : 1); ++copy)
      post(receiver, [sender, topic = std::string(topic), bytes = Bytes(payload.begin(), payload.end())](
                         cluster::BusListener& to) { to.on_message(sender, topic, bytes); });
  }

  boost::asio::io_context& io_;
  std::map<cluster::NodeId, cluster::BusListener*> listeners_;
  std::map<std::pair<cluster::NodeId, std::string>, std::string> facts_;
  std::set<cluster::NodeId> cut_;
};

// Workers of all nodes of a test. Rank 0 computes for its world; the others only say that they are there.
struct FakeWorkers {
  using Choose = scheduler::FakeWorld::Choose;

  Choose choose;  // the next token; empty: any
  int32_t vocabulary = 4096;
  bool hold_results = false;  // steps are computed and never come back
  std::set<worker::WorkerClient*> running;
  std::map<worker::WorkerClient*, std::shared_ptr<worker::WorkerListener>> listeners;
  size_t started = 0;
  std::optional<Error> refuse_to_load;

  WorkerFactory factory();
  // As if the process was killed.
  void kill_all(boost::asio::io_context& io) {
    for (worker::WorkerClient* client : std::set(running))
      boost::asio::post(io, [this, client] {
        if (running.contains(client)) listeners.at(client)->on_exit("signal 9 (Killed)");
      });
  }
};

class FakeWorkerClient final : public worker::WorkerClient {
 public:
  FakeWorkerClient(FakeWorkers& all, boost::asio::io_context& io,
                   std::shared_ptr<worker::WorkerListener> listener)
      : all_(all), io_(io) {
    all_.running.insert(this);
    all_.listeners[this] = std::move(listener);
    all_.started += 1;
  }
  ~FakeWorkerClient() override {
    all_.running.erase(this);
    all_.listeners.erase(this);
  }
  void load(const worker::LoadRequest& request) override {
    request_ = request;
    if (all_.refuse_to_load) return later([](auto& to, auto& all) { to.on_failed(*all.refuse_to_load); });
    // As the test wants it by then.
    const auto choose = [&all = all_](std::span<const int32_t> history, uint64_t seed) {
      return all.choose ? all.choose(history, seed)
                        : static_cast<int32_t>((seed + 7 * history.size()) % 1000);
    };
    world_ = std::make_unique<scheduler::FakeWorld>(request.kv.page_tokens, request.kv.page_count,
                                                    all_.vocabulary, choose);
    if (request.rank_count > 1) later([](auto& to, auto&) { to.on_listening(4000); });
    later([](auto& to, auto&) { to.on_progress(0.5f); });
    later([](auto& to, auto&) {
      to.on_loaded({.weight_bytes = 1 << 20, .kv_bytes = 1 << 20, .scratch_bytes = 1});
    });
    if (request.rank_count == 1) later([](auto& to, auto&) { to.on_ready(); });
  }
  void connect(const worker::ConnectRequest&) override {
    later([](auto& to, auto&) { to.on_ready(); });
  }
  void submit(const runtime::Step& step) override {
    const runtime::StepResult result = world_->run(step);
    if (!all_.hold_results) later([result](auto& to, auto&) { to.on_step_result(result); });
  }
  void shut_down() override {}
  pid_t pid() const override { return 1; }

 private:
  template <class Call>
  void later(Call call) {
    boost::asio::post(io_, [&all = all_, client = static_cast<worker::WorkerClient*>(this), call] {
      if (!all.running.contains(client)) return;
      const std::shared_ptr<worker::WorkerListener> listener = all.listeners.at(client);
      call(*listener, all);
    });
  }

  FakeWorkers& all_;
  boost::asio::io_context& io_;
  worker::LoadRequest request_;
  std::unique_ptr<scheduler::FakeWorld> world_;
};

inline WorkerFactory FakeWorkers::factory() {
  return
      [this](
          boost::asio::io_context& io, const worker::WorkerClient::Options&,
          std::shared_ptr<worker::WorkerListener> listener) -> Result<std::unique_ptr<worker::WorkerClient>> {
        return std::make_unique<FakeWorkerClient>(*this, io, std::move(listener));
      };
}

}  // namespace shoal::serving
