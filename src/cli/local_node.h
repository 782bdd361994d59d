// A node of our own inside this process, reached by this process alone: on a thread, on loopback, without a
// cluster.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace shoal::cli {

struct LocalNodeOptions {
  uint64_t memory_bytes = 0;  // 0: the node's own choice
  uint32_t threads = 0;       // 0: all usable cores
};

class LocalNode {
 public:
  static Result<std::unique_ptr<LocalNode>> start(const LocalNodeOptions& options);
  ~LocalNode();  // stops it

  std::string url() const;

 private:
  struct State;
  explicit LocalNode(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal::cli
