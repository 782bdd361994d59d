// The name of a model as commands send it to a node: a path of this machine is made absolute, since the
// node's working directory is another.
#pragma once

#include <filesystem>
#include <string>

namespace shoal::cli {

inline std::string model_argument(const std::string& name) {
  if (!name.contains('/') && !name.ends_with(".gguf")) return name;
  std::error_code error;
  if (!std::filesystem::exists(name, error)) return name;
  const auto absolute = std::filesystem::absolute(name, error);
  return error ? name : absolute.lexically_normal().string();
}

}  // namespace shoal::cli
