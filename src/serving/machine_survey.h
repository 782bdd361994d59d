// The figures of this machine: from the cache, or measured by a child process (`shoal measure`) while the
// node already runs. Event-loop thread only.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serving/machine_cache.h"
#include "serving/task_pool.h"

namespace shoal::serving {

class MachineSurvey {
 public:
  struct Options {
    std::filesystem::path data_directory;  // empty: no cache
    std::filesystem::path executable;      // the shoal binary
    unsigned threads = 1;
    std::string isa = {};
    bool again = false;                        // measure whatever the cache says
    std::optional<MachineFigures> given = {};  // instead of measuring
  };
  using Measured = std::function<void(const MachineFigures&)>;

  MachineSurvey(boost::asio::io_context& io, Options options) : io_(io), options_(std::move(options)) {}
  ~MachineSurvey() {
    waiting_.clear();
    stop();
  }

  // Figures that are there at once are in figures() when this returns; else `measured` follows, unless
  // measuring fails, which is logged.
  void start(Measured measured);
  const std::optional<MachineFigures>& figures() const { return figures_; }
  bool measuring() const { return measuring_ != nullptr; }
  // Calls `then` when nothing is being measured: at once, after that, or in stop().
  void when_done(std::function<void()> then);
  void stop();

 private:
  void finish(Result<MachineFigures> figures);

  boost::asio::io_context& io_;
  Options options_;
  std::optional<MachineFigures> figures_;
  Measured measured_;
  std::vector<std::function<void()>> waiting_;
  std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<std::atomic<bool>> awaited_ = std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<TaskPool> measuring_;  // while it does
};

// What `shoal measure` finds, run as a child that is ended when `cancelled` becomes true or it takes too
// long. Blocks. Errors: io (cannot be started), timeout, cancelled, malformed, internal (it ended without a
// result).
Result<MachineFigures> measure_in_child(const std::filesystem::path& executable, unsigned threads,
                                        const std::string& isa, const std::atomic<bool>& cancelled);

// The body of the hidden command `shoal measure --fd N`: measures and writes the figures, or the Error.
int run_measure(int fd, unsigned threads, const std::string& isa);

}  // namespace shoal::serving
