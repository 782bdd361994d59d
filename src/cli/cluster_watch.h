// Says in lines what changes in a cluster, from one look at it to the next: who came, who left, what loads.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace shoal::cli {

class ClusterWatch {
 public:
  // Lines for what is new since the last call. Our own node is not mentioned.
  std::vector<std::string> look(const Json& cluster);
  size_t node_count() const { return nodes_.size(); }

 private:
  std::map<std::string, std::string> nodes_;      // id -> name
  std::map<std::string, std::string> instances_;  // id -> state
};

}  // namespace shoal::cli
