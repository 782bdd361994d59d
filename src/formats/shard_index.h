// model.safetensors.index.json: which tensor of a sharded safetensors checkpoint is in which file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "formats/join_parts.h"

namespace shoal::formats {

inline constexpr std::string_view kShardIndexFile = "model.safetensors.index.json";

struct ShardIndex {
  std::vector<std::string> files;                         // plain names, sorted
  std::vector<std::pair<std::string, uint32_t>> tensors;  // name, index into files
};

// A name inside a directory, nothing that leads out of it.
bool is_plain_name(std::string_view name);

// Only 'weight_map' is read, as a stream: of the rest no tree is built. A file's name must be plain.
Result<ShardIndex> parse_shard_index(std::string_view text);
Result<ShardIndex> read_shard_index(const std::filesystem::path& directory);

// `malformed` unless every tensor that the index names is in the file that it names; StoredTensor::file must
// index ShardIndex::files.
Result<> check_against_index(std::span<const StoredTensor> stored, const ShardIndex& index);

}  // namespace shoal::formats
