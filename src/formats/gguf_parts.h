// A GGUF model may be one file or several (`name-00001-of-00003.gguf`, as llama-gguf-split writes them).
// Which files of a directory make the model, and whether parts belong together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/gguf.h"

namespace shoal::formats {

struct GgufPartName {
  std::string prefix;  // before "-00001-of-00003.gguf"
  uint32_t number;     // from 1
  uint32_t count;

  std::string file_name(uint32_t other_number) const;  // of another part
};

// nullopt for a name without a part number.
std::optional<GgufPartName> parse_part_name(const std::string& file_name);

// The paths of all parts of the model that `path` belongs to, in order; `path` alone unless the header says
// that the model is split. `malformed` when header and name do not agree. The files may not be there.
Result<std::vector<std::filesystem::path>> list_parts(const std::filesystem::path& path,
                                                      const GgufMetadata& metadata);

// Whether these headers are the parts 0, 1, … of one model, with as many tensors as they announce.
Result<> check_parts(std::span<const GgufHeader> parts);

// The one model in a directory: its only .gguf file, or the first part of its only split one. Projectors of
// images and matrices of importance beside it are passed over. `not_found` when there is none,
// `invalid_argument` when there are several.
Result<std::filesystem::path> find_only_gguf(const std::filesystem::path& directory);

}  // namespace shoal::formats
