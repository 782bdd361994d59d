#include "formats/gguf_parts.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <set>
#include <system_error>

#include "base/file.h"
#include "base/limits.h"
#include "formats/layout.h"

namespace shoal::formats {
namespace {

constexpr std::string_view kExtension = ".gguf";
constexpr size_t kDigits = 5;

// Takes five digits off the end of `text`; nullopt when there are none.
std::optional<uint32_t> take_number(std::string_view& text) {
  if (text.size() < kDigits) return std::nullopt;
  const std::string_view digits = text.substr(text.size() - kDigits);
  uint32_t number = 0;
  const auto read = std::from_chars(digits.begin(), digits.end(), number);
  if (read.ec != std::errc() || read.ptr != digits.end()) return std::nullopt;
  text.remove_suffix(kDigits);
  return number;
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

std::vector<std::filesystem::path> list_gguf_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == kExtension) found.push_back(entry->path());
  }
  std::ranges::sort(found);
  return found;
}

bool is_named_projector(const std::filesystem::path& path) {
  std::string name = path.filename().native();
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name.find("mmproj") != std::string::npos;
}

// By what its header says. A file that cannot be read counts as a model: opening it tells what is wrong.
bool is_model(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  if (!file) return true;
  const auto header = parse_gguf(file->bytes());
  if (!header) return true;
  const auto text = [&](std::string_view key) {
    return header->metadata.get_string(key).value_or(std::nullopt).value_or("");
  };
  const std::string type = text("general.type");
  return text("general.architecture") != "clip" && type != "mmproj" && type != "imatrix" && type != "adapter";
}

// One path for each model among `files`: of a split one its first part.
std::set<std::filesystem::path> first_parts(const std::vector<std::filesystem::path>& files) {
  std::set<std::filesystem::path> models;
  for (const auto& file : files) {
    const auto part = parse_part_name(file.filename().native());
    models.insert(part ? file.parent_path() / part->file_name(1) : file);
  }
  return models;
}

}  // namespace

std::string GgufPartName::file_name(uint32_t other_number) const {
  return fmt::format("{}-{:05}-of-{:05}{}", prefix, other_number, count, kExtension);
}

std::optional<GgufPartName> parse_part_name(const std::string& file_name) {
  std::string_view rest = file_name;
  if (!take_suffix(rest, kExtension)) return std::nullopt;
  const auto count = take_number(rest);
  if (!count || !take_suffix(rest, "-of-")) return std::nullopt;
  const auto number = take_number(rest);
  if (!number || !take_suffix(rest, "-") || *number < 1 || *number > *count) return std::nullopt;
  return GgufPartName{std::string(rest), *number, *count};
}

Result<std::vector<std::filesystem::path>> list_parts(const std::filesystem::path& path,
                                                      const GgufMetadata& metadata) {
  SHOAL_TRY(const auto stated, metadata.get_integer("split.count", 0, limits::kMaxShardFiles));
  const auto count = static_cast<uint32_t>(stated.value_or(0));
  if (count <= 1) return std::vector{path};
  const auto name = parse_part_name(path.filename().native());
  if (!name || name->count != count) {
    return fail(
        ErrorCode::malformed,
        fmt::format("{} is one of {} parts, but its name does not end in '-00001-of-{:05}.gguf' or the like",
                    quote(path.filename().native()), count, count),
        "give the parts the names that they were published with");
  }
  std::vector<std::filesystem::path> parts;
  for (uint32_t number = 1; number <= count; ++number)
    parts.push_back(path.parent_path() / name->file_name(number));
  return parts;
}

Result<> check_parts(std::span<const GgufHeader> parts) {
  const auto count = static_cast<int64_t>(parts.size());
  if (count <= 1) return {};
  int64_t tensors = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto& part = parts[static_cast<size_t>(i)];
    const auto require = [&](std::string_view key, int64_t expected) -> Result<> {
      SHOAL_TRY(const int64_t value, part.metadata.require_integer(key, 0, INT64_MAX));
      if (value == expected) return {};
      return fail(ErrorCode::malformed,
                  fmt::format("part {} of {}: '{}' is {}, must be {}", i + 1, count, key, value, expected));
    };
    SHOAL_TRY_VOID(require("split.count", count));
    SHOAL_TRY_VOID(require("split.no", i));
    tensors += static_cast<int64_t>(part.tensors.size());
  }
  SHOAL_TRY(const auto announced, parts.front().metadata.get_integer("split.tensors.count", 0, INT64_MAX));
  if (announced.value_or(tensors) != tensors) {
    return fail(ErrorCode::malformed,
                fmt::format("'split.tensors.count' is {}, but the {} parts hold {} tensors", *announced,
                            count, tensors));
  }
  return {};
}

Result<std::filesystem::path> find_only_gguf(const std::filesystem::path& directory) {
  const auto files = list_gguf_files(directory);
  auto models = first_parts(files);
  // The cheap test first: headers are read only where names do not decide.
  if (models.size() > 1) std::erase_if(models, is_named_projector);
  if (models.size() > 1) std::erase_if(models, [](const auto& path) { return !is_model(path); });
  if (models.size() == 1) return *models.begin();
  if (models.empty() && files.empty()) {
    return fail(ErrorCode::not_found, fmt::format("{} holds no .gguf file", quote(directory.native())));
  }
  return fail(ErrorCode::invalid_argument,
              fmt::format("{} holds {} .gguf files", quote(directory.native()), files.size()),
              "name one of them");
}

}  // namespace shoal::formats
