// The node's end of a worker process: starts it, tells it what to load, feeds it steps, hears what comes
// back. A worker is one process that owns one rank's weights and KV; whatever happens to it (crash, kill, out
// of memory) reaches the node as on_exit() and nothing else. Workers die with their node: the socket's end
// and, on Linux, PR_SET_PDEATHSIG see to it. Everything runs on the io_context's one thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "runtime/step.h"
#include "worker/messages.h"

namespace shoal::worker {

class WorkerListener {
 public:
  virtual ~WorkerListener() = default;
  virtual void on_listening(uint16_t port) = 0;  // of ranks that others call
  virtual void on_progress(float fraction) = 0;  // of loading
  virtual void on_loaded(const engine::EngineMemory& memory) = 0;
  virtual void on_ready() = 0;                                  // loaded, and linked to all its peers
  virtual void on_step_result(runtime::StepResult result) = 0;  // rank 0 only
  virtual void on_failed(const Error& error) = 0;  // loading, link or step failed; the worker will exit
  virtual void on_exit(
      const std::string& how) = 0;  // always the last call: "exit code 1", "signal 9 (Killed)"
};

class WorkerClient {
 public:
  struct Options {
    std::string executable;  // the shoal binary; run with the hidden command `worker`
    std::string name;        // for log lines and process titles
  };
  static Result<std::unique_ptr<WorkerClient>> start(boost::asio::io_context& io, const Options& options,
                                                     std::shared_ptr<WorkerListener> listener);
  virtual ~WorkerClient() = default;  // kills the process if it still runs; no callback after

  virtual void load(const LoadRequest& request) = 0;
  virtual void connect(const ConnectRequest& request) = 0;  // to a rank that is to be called
  virtual void submit(const runtime::Step& step) = 0;       // rank 0 only; several may be in flight
  virtual void shut_down() = 0;                             // asks it to leave; on_exit follows
  virtual pid_t pid() const = 0;
};

// The body of the hidden command `shoal worker --fd N`: serves the node on the socket until it ends.
int run_worker(int socket_fd);

}  // namespace shoal::worker
