// The node as the cluster and its workers see it: starting ranks, owning instances, passing on what happened.
#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "base/log.h"
#include "base/memory.h"
#include "cluster/world.h"
#include "serving/node.h"

namespace shoal::serving {

void Node::start_worker(const cluster::InstanceFact& instance, uint32_t rank) {
  const RankKey key{instance.id, instance.epoch, rank};
  if (rank >= instance.ranks.size() || !workers_->reserve(key, instance.ranks[rank].memory_bytes)) return;
  update_free_memory();
  shelf_->find_digest(instance.digest, instance.model,
                      [this, key, instance](const Result<std::shared_ptr<const ModelCard>>& card) {
                        if (!cluster_) return;
                        if (!card) return workers_->fail(key, card.error());
                        launch(instance, key.rank, **card);
                      });
}

void Node::launch(const cluster::InstanceFact& instance, uint32_t rank, const ModelCard& card) {
  const RankKey key{instance.id, instance.epoch, rank};
  const cluster::RankFact& stage = instance.ranks[rank];
  const cluster::RankLinks links = cluster::links_of(instance, rank);
  if (stage.end_layer > card.layer_count || stage.first_layer >= stage.end_layer)
    return workers_->fail(key, {ErrorCode::invalid_argument,
                                fmt::format("rank {} of '{}' is layers {} to {} of {}", rank, instance.id,
                                            stage.first_layer, stage.end_layer, card.layer_count),
                                ""});
  if (card.recurrent != (instance.state_slots > 0))
    return workers_->fail(
        key, {ErrorCode::unsupported,
              fmt::format("'{}' was placed by a node that {} its layers' recurrent states", instance.model,
                          card.recurrent ? "does not know of" : "wrongly knows of"),
              "run the same version of shoal on every node"});
  models_here_[instance.id] = {.vocabulary_size = card.vocabulary_size,
                               .long_after_tokens = card.long_after_tokens};
  workers_->start(key,
                  {.model_path = card.stored.path.string(),
                   .stage = {.first_layer = stage.first_layer,
                             .end_layer = stage.end_layer,
                             .embeds = links.stage == 0,
                             .heads = links.stage + 1 == links.stage_count},
                   .shard = {.rank = rank - links.group.front(),
                             .count = static_cast<uint32_t>(links.group.size()),
                             .shares = cluster::shares_of(instance, links.group)},
                   .kv = {.type = options_.kv_type,
                          .page_tokens = instance.kv_page_tokens,
                          .page_count = instance.kv_page_count,
                          .state_slots = instance.state_slots},
                   .threads = options_.threads,
                   .isa = options_.isa,
                   .instance = instance.id,
                   .epoch = instance.epoch,
                   .secret = instance.secret,
                   .rank = rank,
                   .rank_count = static_cast<uint32_t>(instance.ranks.size()),
                   .peers = {.group = links.group,
                             .previous = links.previous,
                             .next = links.next,
                             .calls = links.calls,
                             .called_by = links.called_by},
                   .wire = instance.wire == planner::WireFormat::bf16 ? runtime::WireFormat::bf16
                                                                      : runtime::WireFormat::f32,
                   .listen_addresses = options_.listen_addresses.empty() ? std::vector<std::string>{"0.0.0.0"}
                                                                         : options_.listen_addresses});
}

void Node::connect_worker(const std::string& instance, uint32_t epoch, uint32_t rank, uint32_t peer,
                          const std::vector<std::string>& addresses, uint16_t port) {
  worker::ConnectRequest request{.peer = peer, .endpoints = {}};
  for (const std::string& address : addresses) request.endpoints.push_back({address, port});
  workers_->connect({instance, epoch, rank}, std::move(request));
}

void Node::stop_worker(const std::string& instance, uint32_t epoch, uint32_t rank) {
  workers_->stop({instance, epoch, rank});
  update_free_memory();
}

void Node::instance_up(const cluster::InstanceFact& instance) {
  const auto running = owners_.find(instance.id);
  if (running != owners_.end()) {
    if (running->second->epoch() == instance.epoch) return;
    running->second->fail_all({ErrorCode::unavailable,
                               fmt::format("instance '{}' moved on to epoch {}", instance.id, instance.epoch),
                               "try again"});
  }
  const RankKey first{instance.id, instance.epoch, 0};
  owners_[instance.id] = std::make_unique<InstanceOwner>(
      instance, models_here_[instance.id], clock_,
      InstanceOwner::Ports{
          .submit_step = [this, first](const runtime::Step& step) { workers_->submit(first, step); },
          .send = [this](const cluster::NodeId& receiver, std::string_view topic,
                         const Bytes& payload) { send(receiver, topic, payload); }});
  log_info("node", "instance {} of '{}' is up, epoch {}", instance.id, instance.model, instance.epoch);
}

void Node::instance_down(const std::string& instance, uint32_t epoch, const Error& why) {
  InstanceOwner* owner = find_owner(instance, epoch);
  if (owner == nullptr) return;
  log_info("node", "instance {} is down: {}", instance, why.text());
  Error error = why;
  error.code = ErrorCode::unavailable;  // for a request in flight; another try may not meet it
  owner->fail_all(error);
  owners_.erase(instance);
}

void Node::instance_changed(const std::string& instance, const cluster::InstanceFact* fact,
                            const Error* why) {
  gateway_->instance_changed(instance, fact, why);
  if (fact == nullptr) {
    figures_.erase(instance);
    models_here_.erase(instance);
  }
  if (fact != nullptr && fact->state == cluster::InstanceState::loading) return;
  if (fact != nullptr && fact->state == cluster::InstanceState::ready)
    return tell_waiters(instance, cluster::InstanceFact(*fact));
  Error error{ErrorCode::unavailable, fmt::format("instance '{}' is gone", instance), "try again"};
  if (fact != nullptr && fact->error) error = *fact->error;
  if (why != nullptr) error = *why;
  tell_waiters(instance, std::unexpected(error));
}

void Node::node_left(const cluster::NodeId& node) {
  gateway_->node_left(node);
  relay_->node_left(node);
  for (auto& [instance, owner] : owners_) owner->gateway_left(node);
}

InstanceOwner* Node::find_owner(std::string_view instance, uint32_t epoch) {
  const auto found = owners_.find(instance);
  return found != owners_.end() && found->second->epoch() == epoch ? found->second.get() : nullptr;
}

void Node::worker_listening(const RankKey& rank, uint16_t port) {
  cluster_->worker_listening(rank.instance, rank.epoch, rank.rank, port);
}

void Node::worker_progress(const RankKey& rank, float fraction) {
  cluster_->worker_progress(rank.instance, rank.epoch, rank.rank, fraction);
}

void Node::worker_loaded(const RankKey& rank, const engine::EngineMemory& memory) {
  log_info("node", "worker {} of {} holds {} of weights, {} of KV, {} of scratch", rank.rank, rank.instance,
           format_bytes(memory.weight_bytes), format_bytes(memory.kv_bytes),
           format_bytes(memory.scratch_bytes));
  const cluster::InstanceFact* instance = cluster_->find_instance(rank.instance);
  const uint64_t held = memory.weight_bytes + memory.kv_bytes + memory.scratch_bytes;
  if (instance != nullptr && rank.rank < instance->ranks.size() &&
      held > instance->ranks[rank.rank].memory_bytes)
    log_warning("node", "worker {} of {} holds {}, {} were predicted", rank.rank, rank.instance,
                format_bytes(held), format_bytes(instance->ranks[rank.rank].memory_bytes));
  update_free_memory();
  cluster_->worker_loaded(rank.instance, rank.epoch, rank.rank);
}

void Node::worker_ready(const RankKey& rank) {
  cluster_->worker_ready(rank.instance, rank.epoch, rank.rank);
}

void Node::worker_step_result(const RankKey& rank, runtime::StepResult result) {
  InstanceOwner* owner = find_owner(rank.instance, rank.epoch);
  if (owner == nullptr) return;
  if (const Result<> taken = owner->on_step_result(result); !taken) workers_->fail(rank, taken.error());
}

// Through the loop: it may be the cluster's own call that made the worker fail.
void Node::worker_lost(const RankKey& rank, const Error& error) {
  boost::asio::post(io_, [this, alive = std::weak_ptr(alive_), rank, error] {
    if (!alive.lock() || !cluster_) return;
    update_free_memory();
    cluster_->worker_failed(rank.instance, rank.epoch, rank.rank, error);
  });
}

}  // namespace shoal::serving
