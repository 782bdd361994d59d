// The models that this machine holds: finds them in folders, names them, and says whether two machines hold
// the same. Reading a model's headers takes milliseconds to seconds, so call from a thread that may wait; all
// calls are safe from any thread. Downloads are not here yet.
//
// A root holds models as its children: a folder with a checkpoint is named after the folder, a .gguf file
// after the file without its ending. The bundled demo model is called "shoal-demo".
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace shoal::hub {

struct StoredModel {
  std::string name;
  std::filesystem::path path;  // what formats::Checkpoint::open() takes
  std::string architecture;    // "qwen3"
  std::string digest;          // 64 hex digits; equal on every machine for equal files
  uint64_t bytes = 0;          // of all files
  int64_t created = 0;         // Unix seconds of the newest file
};

class ModelStore {
 public:
  explicit ModelStore(std::vector<std::filesystem::path> roots);

  // SHOAL_MODELS (folders, separated by ':'), `<data>/models`, and the bundled models beside the executable.
  static std::vector<std::filesystem::path> default_roots(const std::filesystem::path& data_directory);

  // By name; files that cannot be read are left out with a warning. Models given by path are listed once
  // resolved.
  std::vector<StoredModel> list() const;
  // A name of list(), with or without ":latest", or the path of a checkpoint. Errors: not_found with near
  // names in the hint; whatever is wrong with the files of that name.
  Result<StoredModel> resolve(std::string_view name) const;
  // The model with these files, whatever it is called here.
  Result<StoredModel> resolve_digest(std::string_view digest) const;

 private:
  struct Examined {
    std::string fingerprint;  // of sizes and times; when it changes, the files are read again
    Result<StoredModel> model;
  };
  std::map<std::string, std::filesystem::path> candidates() const;
  Result<StoredModel> examine(const std::string& name, const std::filesystem::path& path) const;

  std::vector<std::filesystem::path> roots_;
  mutable std::mutex mutex_;  // guards the two below
  mutable std::map<std::filesystem::path, Examined> examined_;
  mutable std::map<std::string, std::filesystem::path> given_paths_;
};

// "did you mean 'a' or 'b'?" for the names nearest to `wanted`; what is there when none is near; empty
// without names.
std::string nearest_names_hint(std::string_view wanted, const std::vector<std::string>& names);

}  // namespace shoal::hub
