// `shoal show`: what a model is, from its headers alone; no node is needed.
#pragma once

#include <filesystem>
#include <string>

namespace shoal::cli {

struct ShowOptions {
  std::string model;                     // a path, or a name that a node here would know
  std::filesystem::path data_directory;  // where such a node has its models
  bool json = false;
};

// Returns the exit code; on failure one line went to stderr.
int run_show(const ShowOptions& options);

}  // namespace shoal::cli
