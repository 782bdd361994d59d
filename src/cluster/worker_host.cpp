#include "cluster/worker_host.h"

#include <algorithm>

#include "cluster/world.h"

namespace shoal::cluster {
namespace {

constexpr size_t kMaxHosted = 64;
constexpr size_t kMaxRememberedStops = 1024;

}  // namespace

WorkerFact* WorkerHost::report_of(const WorkerKey& key) {
  for (WorkerFact& worker : view_.self().workers) {
    if (worker.instance == key.instance && worker.epoch == key.epoch && worker.rank == key.rank)
      return &worker;
  }
  return nullptr;
}

bool WorkerHost::wanted(const WorkerKey& key) const {
  const InstanceFact* fact = view_.instance(key.instance);
  return fact && is_live(fact->state) && fact->epoch == key.epoch && key.rank < fact->ranks.size() &&
         fact->ranks[key.rank].node == view_.self_id();
}

bool WorkerHost::was_stopped(const WorkerKey& key) const {
  return std::find(stopped_.begin(), stopped_.end(), key) != stopped_.end();
}

bool WorkerHost::hear(const WorkerReported& report, Actions& out) {
  auto hosted = hosted_.find(report.worker);
  WorkerFact* worker = report_of(report.worker);
  if (hosted == hosted_.end() || !worker || worker->state == WorkerState::failed) return false;
  WorkerState before = worker->state;
  worker->state = std::max(worker->state, report.state);
  if (report.progress) worker->progress = std::clamp(*report.progress, 0.0f, 1.0f);
  if (worker->state >= WorkerState::loaded) worker->progress = 1;
  uint16_t port_before = worker->port;
  if (report.port) worker->port = *report.port;
  if (report.state == WorkerState::failed) {
    worker->error = report.error.value_or(Error{ErrorCode::unavailable, "the worker ended", ""});
    worker->port = 0;
    hosted->second.stopped = true;
    out.push_back(StopWorker{report.worker});
  }
  return worker->state != before || worker->port != port_before;
}

void WorkerHost::begin(const InstanceFact& fact, uint32_t rank, Actions& out) {
  WorkerKey key{fact.id, fact.epoch, rank};
  WorkerFact report{fact.id, fact.epoch, rank, WorkerState::starting, 0, 0, std::nullopt};
  auto refuse = [&](ErrorCode code, std::string why) {
    report.state = WorkerState::failed;
    report.error = Error{code, std::move(why), ""};
  };
  if (hosted_.size() >= kMaxHosted) {
    refuse(ErrorCode::limit_exceeded, "the node runs 64 workers already");
  } else if (fact.state != InstanceState::loading || was_stopped(key)) {
    refuse(ErrorCode::unavailable, "the node has lost its worker");
  } else {
    out.push_back(StartWorker{fact, rank});
  }
  hosted_[key] = Hosted{.stopped = report.state == WorkerState::failed};
  view_.self().workers.push_back(std::move(report));
}

void WorkerHost::end(const WorkerKey& key, const Hosted& hosted, Actions& out) {
  if (!hosted.stopped) out.push_back(StopWorker{key});
  std::erase_if(view_.self().workers, [&](const WorkerFact& worker) {
    return worker.instance == key.instance && worker.epoch == key.epoch && worker.rank == key.rank;
  });
  stopped_.push_back(key);
  if (stopped_.size() > kMaxRememberedStops) stopped_.pop_front();
}

void WorkerHost::connect(const WorkerKey& key, Hosted& hosted, Actions& out) {
  const InstanceFact* fact = view_.instance(key.instance);
  if (fact->ranks.size() < 2 || hosted.stopped) return;
  for (const uint32_t peer : links_of(*fact, key.rank).calls) {
    const NodeId& node = fact->ranks[peer].node;
    const WorkerFact* worker = view_.worker(node, key.instance, key.epoch, peer);
    if (!worker || worker->port == 0 || worker->port == hosted.called_ports[peer]) continue;
    hosted.called_ports[peer] = worker->port;
    out.push_back(ConnectWorker{key, peer, view_.node(node)->addresses, worker->port});
  }
}

bool WorkerHost::reconcile(Actions& out) {
  bool changed = false;
  for (auto it = hosted_.begin(); it != hosted_.end();) {
    if (wanted(it->first)) {
      ++it;
      continue;
    }
    end(it->first, it->second, out);
    it = hosted_.erase(it);
    changed = true;
  }
  for (const auto& [id, fact] : view_.instances()) {
    if (!is_live(fact->state)) continue;
    for (uint32_t rank = 0; rank < fact->ranks.size(); ++rank) {
      if (fact->ranks[rank].node != view_.self_id() || hosted_.contains({id, fact->epoch, rank})) continue;
      begin(*fact, rank, out);
      changed = true;
    }
  }
  for (auto& [key, hosted] : hosted_) connect(key, hosted, out);
  return changed;
}

void WorkerHost::stop_all(Actions& out) {
  for (const auto& [key, hosted] : hosted_) end(key, hosted, out);
  hosted_.clear();
}

}  // namespace shoal::cluster
