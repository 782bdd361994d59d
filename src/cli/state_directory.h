// A node's data directory: made when absent, held by one process at a time, with the node's id in it.
#pragma once

#include <filesystem>
#include <string>

#include "base/file.h"
#include "base/result.h"

namespace shoal::cli {

class StateDirectory {
 public:
  // Errors: conflict when another node holds it; io when it cannot be made or written.
  static Result<StateDirectory> open(const std::filesystem::path& directory);

  const std::filesystem::path& path() const { return path_; }
  const std::string& node_id() const { return node_id_; }  // 16 hex digits, the same at every start

 private:
  StateDirectory(std::filesystem::path path, FileDescriptor lock, std::string node_id)
      : path_(std::move(path)), lock_(std::move(lock)), node_id_(std::move(node_id)) {}

  std::filesystem::path path_;
  FileDescriptor lock_;  // holds the lock as long as it is open
  std::string node_id_;
};

}  // namespace shoal::cli
