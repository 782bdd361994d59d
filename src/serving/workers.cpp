#include "serving/workers.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "base/log.h"

namespace shoal::serving {

// Passes a worker's calls on until its entry is removed; late ones meet a null owner.
class Workers::Listener final : public worker::WorkerListener {
 public:
  Listener(Workers& owner, RankKey rank) : owner_(&owner), rank_(std::move(rank)) {}
  void detach() { owner_ = nullptr; }

  void on_listening(uint16_t port) override {
    if (owner_) owner_->events_.worker_listening(rank_, port);
  }
  void on_progress(float fraction) override {
    if (owner_) owner_->events_.worker_progress(rank_, fraction);
  }
  void on_loaded(const engine::EngineMemory& memory) override {
    if (!owner_) return;
    if (const auto entry = owner_->entries_.find(rank_); entry != owner_->entries_.end())
      entry->second.reported_bytes = memory.weight_bytes + memory.kv_bytes + memory.scratch_bytes;
    owner_->events_.worker_loaded(rank_, memory);
  }
  void on_ready() override {
    if (owner_) owner_->events_.worker_ready(rank_);
  }
  void on_step_result(runtime::StepResult result) override {
    if (owner_) owner_->events_.worker_step_result(rank_, std::move(result));
  }
  void on_failed(const Error& error) override {
    if (owner_) owner_->fail(rank_, error);
  }
  void on_exit(const std::string& how) override {
    if (owner_)
      owner_->fail(rank_,
                   {ErrorCode::unavailable,
                    fmt::format("the worker of rank {} of '{}' ended: {}", rank_.rank, rank_.instance, how),
                    "see its log; a killed worker may have run out of memory"});
  }

 private:
  Workers* owner_;
  RankKey rank_;
};

Workers::Workers(boost::asio::io_context& io, WorkerFactory factory, std::string executable,
                 WorkerEvents& events)
    : io_(io), factory_(std::move(factory)), executable_(std::move(executable)), events_(events) {}

Workers::~Workers() {
  for (auto& [rank, entry] : entries_)
    if (entry.listener) entry.listener->detach();
}

bool Workers::reserve(const RankKey& rank, uint64_t predicted_bytes) {
  return entries_
      .emplace(rank, Entry{.predicted_bytes = predicted_bytes,
                           .reported_bytes = 0,
                           .calls = {},
                           .listener = nullptr,
                           .client = nullptr})
      .second;
}

void Workers::start(const RankKey& rank, const worker::LoadRequest& request) {
  const auto found = entries_.find(rank);
  if (found == entries_.end() || found->second.client) return;
  Entry& entry = found->second;
  entry.listener = std::make_shared<Listener>(*this, rank);
  Result<std::unique_ptr<worker::WorkerClient>> client =
      factory_(io_, {.executable = executable_, .name = fmt::format("{} rank {}", rank.instance, rank.rank)},
               entry.listener);
  if (!client) return fail(rank, client.error());
  entry.client = *std::move(client);
  log_info("node", "worker {} of {} epoch {} started, process {}", rank.rank, rank.instance, rank.epoch,
           entry.client->pid());
  entry.client->load(request);
  for (const worker::ConnectRequest& call : entry.calls) entry.client->connect(call);
}

void Workers::connect(const RankKey& rank, worker::ConnectRequest request) {
  const auto found = entries_.find(rank);
  if (found == entries_.end()) return;
  if (found->second.client) return found->second.client->connect(request);
  found->second.calls.push_back(std::move(request));
}

void Workers::submit(const RankKey& rank, const runtime::Step& step) {
  const auto found = entries_.find(rank);
  if (found != entries_.end() && found->second.client) found->second.client->submit(step);
}

void Workers::stop(const RankKey& rank) {
  const auto found = entries_.find(rank);
  if (found == entries_.end()) return;
  log_info("node", "worker {} of {} epoch {} stops", rank.rank, rank.instance, rank.epoch);
  if (found->second.client) found->second.client->shut_down();
  remove(found);
}

void Workers::stop_all() {
  while (!entries_.empty()) stop(RankKey(entries_.begin()->first));
}

void Workers::fail(const RankKey& rank, const Error& error) {
  const auto found = entries_.find(rank);
  if (found == entries_.end()) return;
  log_warning("node", "worker {} of {} epoch {}: {}", rank.rank, rank.instance, rank.epoch, error.text());
  remove(found);
  events_.worker_lost(rank, error);
}

// The client may be calling us right now, so it is destroyed (which kills the process) once it returned.
void Workers::remove(std::map<RankKey, Entry>::iterator entry) {
  if (entry->second.listener) entry->second.listener->detach();
  std::shared_ptr<worker::WorkerClient> client = std::move(entry->second.client);
  entries_.erase(entry);
  if (client) boost::asio::post(io_, [client = std::move(client)] {});
}

uint64_t Workers::held_bytes() const {
  uint64_t sum = 0;
  for (const auto& [rank, entry] : entries_) sum += std::max(entry.predicted_bytes, entry.reported_bytes);
  return sum;
}

}  // namespace shoal::serving
