#include "formats/shard_index.h"

#include <algorithm>
#include <fmt/format.h>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "formats/layout.h"

namespace shoal::formats {

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

Result<ShardIndex> read_shard_index(const std::filesystem::path& directory) {
  SHOAL_TRY(const std::string text, read_text_file(directory / kShardIndexFile, limits::kMaxShardIndexBytes));
  SHOAL_TRY(const JsonObject index, parse_json_object(text, kShardIndexFile));
  SHOAL_TRY(const JsonObject* weight_map, get_object(index, "weight_map"));
  if (!weight_map || weight_map->empty()) {
    return fail(ErrorCode::malformed, fmt::format("{}: 'weight_map' is missing or empty", kShardIndexFile));
  }
  std::set<std::string, std::less<>> names;
  for (const auto& [tensor, file] : *weight_map) {
    const std::string_view name = file.is_string() ? std::string_view(file.get_string()) : std::string_view();
    if (!is_plain_name(name)) {
      return fail(ErrorCode::malformed,
                  fmt::format("{}: tensor {} is said to be in {}, which is not a plain file name",
                              kShardIndexFile, quote(tensor), quote(name)));
    }
    names.emplace(name);
  }
  if (names.size() > limits::kMaxShardFiles) {
    return fail(ErrorCode::limit_exceeded, fmt::format("{}: {} files, over the limit of {}", kShardIndexFile,
                                                       names.size(), limits::kMaxShardFiles));
  }
  ShardIndex result{{names.begin(), names.end()}, {}};
  for (const auto& [tensor, file] : *weight_map) {
    const auto place = std::ranges::lower_bound(result.files, std::string_view(file.get_string()));
    result.tensors.emplace_back(tensor, static_cast<uint32_t>(place - result.files.begin()));
  }
  return result;
}

Result<> check_against_index(std::span<const StoredTensor> stored, const ShardIndex& index) {
  std::vector<std::pair<std::string_view, uint32_t>> held;
  held.reserve(stored.size());
  for (const auto& [tensor, file] : stored) held.emplace_back(tensor.name, file);
  std::ranges::sort(held);
  for (const auto& [name, file] : index.tensors) {
    if (std::ranges::binary_search(held, std::pair(std::string_view(name), file))) continue;
    return fail(ErrorCode::malformed, fmt::format("{} says that tensor {} is in {}, but it is not",
                                                  kShardIndexFile, quote(name), quote(index.files[file])));
  }
  return {};
}

}  // namespace shoal::formats
