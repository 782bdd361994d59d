// The node's end of a worker process: starts it, tells it what to load, feeds it steps, hears what comes back.
// A worker is one process that owns one rank's weights and KV; whatever happens to it (crash, kill, out of memory)
// reaches the node as on_exit() and nothing else. Workers die with their node: the socket's end and, on Linux,
// PR_SET_PDEATHSIG see to it. Everything runs on the io_context's one thread.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "runtime/step.h"

namespace shoal::worker {

// What one rank of an instance's world has to be. Ranks form a ring: rank r sends hidden rows to rank r + 1, the
// last rank sends step results to rank 0, which hands them to its node. A world of one rank has no links.
struct LoadRequest {
  std::string model_path;
  engine::StageRange stage;
  engine::TensorShard shard;
  engine::KvConfig kv;
  uint32_t threads = 0;          // 0: all usable cores
  std::string isa;               // empty: the best this CPU has
  std::string instance;          // with epoch and secret: who may connect to our Link
  uint32_t epoch = 0;
  std::string secret;            // shared by the ranks of this epoch; a peer without it is refused
  uint32_t rank = 0;
  uint32_t rank_count = 1;
  std::vector<std::string> listen_addresses;  // where the previous rank may reach us; "0.0.0.0" or addresses of this node
};

struct Endpoint {
  std::string address;           // numeric IPv4 or IPv6
  uint16_t port = 0;
};

class WorkerListener {
 public:
  virtual ~WorkerListener() = default;
  virtual void on_listening(uint16_t port) = 0;              // only in worlds of several ranks
  virtual void on_progress(float fraction) = 0;              // of loading
  virtual void on_loaded(const engine::EngineMemory& memory) = 0;
  virtual void on_ready() = 0;                               // loaded, and connected to both neighbours in the ring
  virtual void on_step_result(runtime::StepResult result) = 0;  // rank 0 only
  virtual void on_failed(const Error& error) = 0;            // loading, link or step failed; the worker will exit
  virtual void on_exit(const std::string& how) = 0;          // always the last call: "exit code 1", "signal 9 (Killed)"
};

class WorkerClient {
 public:
  struct Options {
    std::string executable;      // the shoal binary; run with the hidden command `worker`
    std::string name;            // for log lines and process titles
  };
  static Result<std::unique_ptr<WorkerClient>> start(boost::asio::io_context& io, const Options& options,
                                                     std::shared_ptr<WorkerListener> listener);
  virtual ~WorkerClient() = default;                         // kills the process if it still runs; no callback after

  virtual void load(const LoadRequest& request) = 0;
  virtual void connect(const std::vector<Endpoint>& next) = 0;  // tried in order, until one works
  virtual void submit(const runtime::Step& step) = 0;        // rank 0 only; several may be in flight
  virtual void shut_down() = 0;                              // asks it to leave; on_exit follows
  virtual pid_t pid() const = 0;
};

// The body of the hidden command `shoal worker --fd N`: serves the node on the socket until it ends.
int run_worker(int socket_fd);

}  // namespace shoal::worker
