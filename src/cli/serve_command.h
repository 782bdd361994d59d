// `shoal serve`: one node until a signal ends it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace shoal::cli {

struct ServeOptions {
  uint16_t port = 8000;
  // Numeric. Empty: the API on loopback, the cluster's traffic on all interfaces. Else both on this address,
  // and the API on loopback, too.
  std::string listen;
  std::string name;  // empty: the host's
  std::string cluster = "shoal";
  uint16_t cluster_port = 0;       // of the cluster's own traffic; 0: any free one
  std::vector<std::string> peers;  // HOST:PORT of other nodes' cluster ports
  std::filesystem::path data_directory;
  uint64_t memory_bytes = 0;    // 0: most of what is available
  uint32_t threads = 0;         // 0: all usable cores
  bool measure = false;         // this machine again, whatever an earlier start found
  std::string model;            // to place once the node is up; may be empty
  uint32_t minimum_nodes = 1;   // that model is placed on
  uint32_t context_tokens = 0;  // 0: the planner's choice
  std::string api_key;
  std::vector<std::string> allowed_origins;
};

// What `listen` means: for the API, for the cluster's bus, for the links of workers.
bool is_loopback_address(const std::string& address);
bool is_any_address(const std::string& address);
inline bool opens_the_api(const ServeOptions& options) {
  return !options.listen.empty() && !is_loopback_address(options.listen);
}

int run_serve(const ServeOptions& options);

}  // namespace shoal::cli
