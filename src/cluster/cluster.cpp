#include "cluster/cluster.h"

#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <map>
#include <tuple>

#include "base/log.h"
#include "cluster/reducer.h"

namespace shoal::cluster {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

}  // namespace

struct Cluster::State {
  State(Bus& bus_, const Clock& clock_, WorldEffects& effects_, NodeFact self,
        std::function<uint64_t()> random_)
      : bus(bus_), clock(clock_), effects(effects_), random(std::move(random_)), reducer(std::move(self)) {}

  // The reducer runs at once; what it wants done is queued, so that an effect that reports back (a worker
  // that fails to start) is heard in order and nothing recurses.
  void apply(const Event& event) {
    for (Action& action : reducer.apply(event, clock.now())) queue.push_back(std::move(action));
    if (draining) return;
    draining = true;
    while (!queue.empty()) {
      Action action = std::move(queue.front());
      queue.pop_front();
      perform(action);
    }
    draining = false;
  }

  void perform(const Action& action) {
    std::visit(Overloaded{
                   [&](const PublishFact& one) { bus.publish(one.name, one.value); },
                   [&](const WithdrawFact& one) { bus.withdraw(one.name); },
                   [&](const SendMessage& one) { bus.send(one.receiver, one.topic, as_bytes(one.payload)); },
                   [&](const StartWorker& one) { effects.start_worker(one.instance, one.rank); },
                   [&](const ConnectWorker& one) {
                     effects.connect_worker(one.worker.instance, one.worker.epoch, one.worker.rank, one.peer,
                                            one.addresses, one.port);
                   },
                   [&](const StopWorker& one) {
                     effects.stop_worker(one.worker.instance, one.worker.epoch, one.worker.rank);
                   },
                   [&](const InstanceUp& one) { effects.instance_up(one.instance); },
                   [&](const InstanceDown& one) { effects.instance_down(one.instance, one.epoch, one.why); },
                   [&](const InstanceChanged& one) {
                     effects.instance_changed(one.instance, one.fact ? &*one.fact : nullptr,
                                              one.why ? &*one.why : nullptr);
                   },
                   [&](const NodeGone& one) { effects.node_left(one.node); },
                   [&](const PlaceDone& one) { finish(places, one); },
                   [&](const StopDone& one) { finish(stops, one); },
               },
               action);
  }

  template <class Calls, class Done>
  void finish(Calls& calls, const Done& done) {
    auto call = calls.extract(done.call);
    if (!call.empty() && call.mapped()) call.mapped()(done.result);
  }

  void report(WorkerKey worker, WorkerState state, std::optional<float> progress,
              std::optional<uint16_t> port, std::optional<Error> error) {
    apply(WorkerReported{std::move(worker), state, progress, port, std::move(error)});
  }

  Bus& bus;
  const Clock& clock;
  WorldEffects& effects;
  std::function<uint64_t()> random;
  Reducer reducer;
  std::deque<Action> queue;
  bool draining = false;
  bool running = false;
  CallId next_call = 1;
  std::map<CallId, std::function<void(Result<InstanceFact>)>> places;
  std::map<CallId, std::function<void(Result<>)>> stops;
  std::map<std::string, MessageHandler, std::less<>> handlers;
};

Cluster::Cluster(Bus& bus, const Clock& clock, WorldEffects& effects, NodeFact self,
                 std::function<uint64_t()> random)
    : state_(std::make_unique<State>(bus, clock, effects, std::move(self), std::move(random))) {}

Cluster::~Cluster() {
  if (state_->running) state_->bus.stop();
}

Result<> Cluster::start() {
  SHOAL_TRY_VOID(state_->bus.start(*this));
  state_->running = true;
  state_->apply(Started{});
  return {};
}

void Cluster::stop() {
  if (!state_->running) return;
  state_->apply(Leaving{});
  state_->running = false;
  state_->bus.stop();
}

void Cluster::tick() {
  state_->apply(Tick{});
}

void Cluster::update_self(const std::function<void(NodeFact&)>& change) {
  NodeFact fact = state_->reducer.view().self();
  change(fact);
  state_->apply(SelfChanged{std::move(fact)});
}

void Cluster::worker_listening(const std::string& instance, uint32_t epoch, uint32_t rank, uint16_t port) {
  state_->report({instance, epoch, rank}, WorkerState::starting, std::nullopt, port, std::nullopt);
}

void Cluster::worker_progress(const std::string& instance, uint32_t epoch, uint32_t rank, float fraction) {
  state_->report({instance, epoch, rank}, WorkerState::loading, fraction, std::nullopt, std::nullopt);
}

void Cluster::worker_loaded(const std::string& instance, uint32_t epoch, uint32_t rank) {
  state_->report({instance, epoch, rank}, WorkerState::loaded, std::nullopt, std::nullopt, std::nullopt);
}

void Cluster::worker_ready(const std::string& instance, uint32_t epoch, uint32_t rank) {
  state_->report({instance, epoch, rank}, WorkerState::ready, std::nullopt, std::nullopt, std::nullopt);
}

void Cluster::worker_failed(const std::string& instance, uint32_t epoch, uint32_t rank, const Error& error) {
  state_->report({instance, epoch, rank}, WorkerState::failed, std::nullopt, std::nullopt, error);
}

PlannerInput Cluster::planner_input(const PlaceRequest& request) const {
  return state_->reducer.planner_input(request);
}

Result<std::vector<planner::Placement>> Cluster::preview(const PlaceRequest& request) const {
  return state_->reducer.preview(request);
}

void Cluster::place(const PlaceRequest& request, std::function<void(Result<InstanceFact>)> done) {
  CallId call = state_->next_call++;
  state_->places.emplace(call, std::move(done));
  std::string id = fmt::format("{:016x}", state_->random());
  std::string secret = fmt::format("{:016x}{:016x}", state_->random(), state_->random());
  state_->apply(PlaceAsked{call, request, std::move(id), std::move(secret)});
}

void Cluster::stop_instance(const std::string& instance, std::function<void(Result<>)> done) {
  CallId call = state_->next_call++;
  state_->stops.emplace(call, std::move(done));
  state_->apply(StopAsked{call, instance});
}

const NodeFact& Cluster::self() const {
  return state_->reducer.view().self();
}

std::vector<NodeFact> Cluster::nodes() const {
  std::vector<NodeFact> all;
  for (const auto& [id, member] : state_->reducer.view().members()) {
    if (member.fact) all.push_back(*member.fact);
  }
  const NodeId& self_id = self().id;
  std::sort(all.begin(), all.end(), [&](const NodeFact& a, const NodeFact& b) {
    return std::tuple(a.id != self_id, a.name, a.id) < std::tuple(b.id != self_id, b.name, b.id);
  });
  return all;
}

std::string Cluster::node_name(const NodeId& node) const {
  return state_->reducer.view().name_of(node);
}

std::vector<InstanceFact> Cluster::instances() const {
  std::vector<InstanceFact> all;
  for (const auto& [id, fact] : state_->reducer.view().instances()) all.push_back(*fact);
  return all;
}

const InstanceFact* Cluster::find_instance(std::string_view id_or_model) const {
  return state_->reducer.view().find_instance(id_or_model);
}

void Cluster::send(const NodeId& receiver, std::string_view topic, ByteView payload) {
  state_->bus.send(receiver, topic, payload);
}

void Cluster::on_topic(std::string topic, MessageHandler handler) {
  state_->handlers.insert_or_assign(std::move(topic), std::move(handler));
}

void Cluster::on_node_joined(const NodeId& node) {
  state_->apply(NodeJoined{node});
}

void Cluster::on_node_left(const NodeId& node) {
  state_->apply(NodeLeft{node});
}

void Cluster::on_fact(const NodeId& writer, std::string_view name, std::string_view value) {
  state_->apply(FactHeard{writer, std::string(name), std::string(value)});
}

void Cluster::on_message(const NodeId& sender, std::string_view topic, ByteView payload) {
  if (topic.starts_with("cluster/")) {
    state_->apply(MessageHeard{sender, std::string(topic), std::string(as_text(payload))});
  } else if (auto handler = state_->handlers.find(topic); handler != state_->handlers.end()) {
    MessageHandler handle = handler->second;  // it may replace itself
    handle(sender, payload);
  } else {
    log_debug("cluster", "nobody listens to {} of {}", topic, sender);
  }
}

}  // namespace shoal::cluster
