// The worker processes of this node, one per (instance, epoch, rank): starts, connects and stops them, and
// knows what memory they hold. Event-loop thread only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/worker_client.h"

namespace shoal::serving {

struct RankKey {
  std::string instance;
  uint32_t epoch = 0;
  uint32_t rank = 0;
  auto operator<=>(const RankKey&) const = default;
};

class WorkerEvents {
 public:
  virtual ~WorkerEvents() = default;
  virtual void worker_listening(const RankKey& rank, uint16_t port) = 0;
  virtual void worker_progress(const RankKey& rank, float fraction) = 0;
  virtual void worker_loaded(const RankKey& rank, const engine::EngineMemory& memory) = 0;
  virtual void worker_ready(const RankKey& rank) = 0;
  virtual void worker_step_result(const RankKey& rank, runtime::StepResult result) = 0;
  // Once, when it ends before it was stopped; it is gone from Workers then.
  virtual void worker_lost(const RankKey& rank, const Error& error) = 0;
};

using WorkerFactory = std::function<Result<std::unique_ptr<worker::WorkerClient>>(
    boost::asio::io_context&, const worker::WorkerClient::Options&, std::shared_ptr<worker::WorkerListener>)>;

class Workers {
 public:
  Workers(boost::asio::io_context& io, WorkerFactory factory, std::string executable, WorkerEvents& events);
  ~Workers();

  // A place for a rank whose worker is about to start, with the memory that it is predicted to take. False:
  // it is there already.
  bool reserve(const RankKey& rank, uint64_t predicted_bytes);
  // Starts the process of a reserved rank, unless it was stopped meanwhile.
  void start(const RankKey& rank, const worker::LoadRequest& request);
  void connect(const RankKey& rank, worker::ConnectRequest request);  // kept until the process is there
  void submit(const RankKey& rank, const runtime::Step& step);
  void stop(const RankKey& rank);
  void stop_all();
  // Reports a rank as lost, for a reason that its worker does not know of.
  void fail(const RankKey& rank, const Error& error);

  uint64_t held_bytes() const;  // predicted or reported, whichever is more
  size_t count() const { return entries_.size(); }

 private:
  class Listener;
  struct Entry {
    uint64_t predicted_bytes = 0;
    uint64_t reported_bytes = 0;
    std::vector<worker::ConnectRequest> calls;
    std::shared_ptr<Listener> listener;
    std::unique_ptr<worker::WorkerClient> client;
  };
  void remove(std::map<RankKey, Entry>::iterator entry);

  boost::asio::io_context& io_;
  WorkerFactory factory_;
  std::string executable_;
  WorkerEvents& events_;
  std::map<RankKey, Entry> entries_;
};

}  // namespace shoal::serving
