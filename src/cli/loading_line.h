// Shows on a terminal how far a model is loaded, from a thread of its own that asks the node now and then.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "cli/http_client.h"

namespace shoal::cli {

class LoadingLine {
 public:
  // Draws nothing when stderr is not a terminal. `client` must outlive this object.
  LoadingLine(const HttpClient& client, std::string model);
  ~LoadingLine() { stop(); }
  LoadingLine(const LoadingLine&) = delete;
  LoadingLine& operator=(const LoadingLine&) = delete;

  void stop();  // clears the line; may be called again

 private:
  void show();

  const HttpClient& client_;
  std::string model_;
  std::mutex mutex_;  // guards done_
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace shoal::cli
