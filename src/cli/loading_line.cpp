#include "cli/loading_line.h"

#include <unistd.h>

#include "cli/ask_commands.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(200);

}  // namespace

LoadingLine::LoadingLine(const HttpClient& client, std::string model)
    : client_(client), model_(std::move(model)) {
  if (is_terminal(STDERR_FILENO)) thread_ = std::thread([this] { show(); });
}

void LoadingLine::stop() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LoadingLine::show() {
  ProgressLine line;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kInterval, [this] { return done_; })) {
    lock.unlock();
    const auto cluster = client_.json("GET", "/v1/cluster");
    lock.lock();
    if (!cluster || done_) continue;
    if (const auto progress = loading_progress(*cluster, model_)) line.show("loading " + model_, *progress);
  }
}

}  // namespace shoal::cli
