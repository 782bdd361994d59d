#include "formats/checkpoint.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <set>
#include <system_error>

#include "base/assert.h"
#include "base/file.h"
#include "base/limits.h"
#include "formats/layout.h"
#include "formats/safetensors.h"

namespace shoal::formats {

struct Checkpoint::State {
  CheckpointFormat format = CheckpointFormat::gguf;
  std::filesystem::path path;
  std::filesystem::path directory;  // where siblings are
  std::vector<std::filesystem::path> files;
  std::vector<MappedFile> maps;  // one per file
  std::vector<TensorInfo> tensors;
  std::vector<uint32_t> by_name;  // indices into tensors, sorted by name
  uint64_t total_bytes = 0;
  std::optional<GgufMetadata> gguf;
  std::optional<JsonObject> config;

  const TensorInfo* find(std::string_view name) const {
    auto name_of = [this](uint32_t index) -> std::string_view { return tensors[index].name; };
    auto place = std::ranges::lower_bound(by_name, name, {}, name_of);
    return place != by_name.end() && name_of(*place) == name ? &tensors[*place] : nullptr;
  }
};

namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// A name inside a directory, nothing that leads out of it.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error) && !error;
}

// The GGUF files of a directory, sorted; empty when it cannot be read.
std::vector<std::filesystem::path> list_gguf_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".gguf") found.push_back(entry->path());
  }
  std::ranges::sort(found);
  return found;
}

struct ShardIndex {
  std::vector<std::string> files;                         // sorted
  std::vector<std::pair<std::string, uint32_t>> tensors;  // name, index into files
};

Result<ShardIndex> read_shard_index(const std::filesystem::path& directory) {
  SHOAL_TRY(const std::string text, read_text_file(directory / kIndexFile, limits::kMaxShardIndexBytes));
  SHOAL_TRY(const JsonObject index, parse_json_object(text, kIndexFile));
  SHOAL_TRY(const JsonObject* weight_map, get_object(index, "weight_map"));
  if (!weight_map || weight_map->empty()) {
    return fail(ErrorCode::malformed, fmt::format("{}: 'weight_map' is missing or empty", kIndexFile));
  }
  std::set<std::string, std::less<>> names;
  for (const auto& [tensor, file] : *weight_map) {
    const std::string_view name = file.is_string() ? std::string_view(file.get_string()) : std::string_view();
    if (!is_plain_name(name)) {
      return fail(ErrorCode::malformed,
                  fmt::format("{}: tensor {} is said to be in {}, which is not a plain file name", kIndexFile,
                              quote(tensor), quote(name)));
    }
    names.emplace(name);
  }
  if (names.size() > limits::kMaxShardFiles) {
    return fail(ErrorCode::limit_exceeded, fmt::format("{}: {} files, over the limit of {}", kIndexFile,
                                                       names.size(), limits::kMaxShardFiles));
  }
  ShardIndex result{{names.begin(), names.end()}, {}};
  for (const auto& [tensor, file] : *weight_map) {
    const auto place = std::ranges::lower_bound(result.files, std::string_view(file.get_string()));
    result.tensors.emplace_back(tensor, static_cast<uint32_t>(place - result.files.begin()));
  }
  return result;
}

}  // namespace

// The steps of open(), filling a State.
struct CheckpointLoader {
  Checkpoint::State& state;

  Result<> open() {
    std::error_code error;
    const auto status = std::filesystem::status(state.path, error);
    if (!std::filesystem::exists(status)) {
      return fail(ErrorCode::not_found, fmt::format("no model at {}", quote(state.path.native())));
    }
    if (!std::filesystem::is_directory(status)) {
      state.directory = state.path.parent_path();
      if (state.path.extension() == ".safetensors") {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} is one file of a model", quote(state.path.native())),
                    "name the directory that holds it and config.json");
      }
      return finish(open_gguf(state.path));
    }
    state.directory = state.path;
    const bool has_weights = is_there(state.path / kSingleFile) || is_there(state.path / kIndexFile);
    return finish(has_weights ? open_safetensors() : open_only_gguf());
  }

  // What both formats need at the end.
  Result<> finish(Result<> opened) {
    if (!opened) return opened;
    auto name_of = [this](uint32_t index) -> std::string_view { return state.tensors[index].name; };
    state.by_name.resize(state.tensors.size());
    for (uint32_t i = 0; i < state.by_name.size(); ++i) {
      state.by_name[i] = i;
      state.total_bytes += state.tensors[i].bytes;
    }
    std::ranges::sort(state.by_name, {}, name_of);
    const auto twin = std::ranges::adjacent_find(state.by_name, {}, name_of);
    if (twin == state.by_name.end()) return {};
    return fail(ErrorCode::malformed, fmt::format("tensor {} is in two files", quote(name_of(*twin))));
  }

  Result<> map(const std::filesystem::path& path) {
    SHOAL_TRY(MappedFile file, MappedFile::open(path));
    state.files.push_back(path);
    state.maps.push_back(std::move(file));
    return {};
  }

  Result<> open_only_gguf() {
    const auto found = list_gguf_files(state.path);
    if (found.size() == 1) return open_gguf(found.front());
    if (found.empty()) {
      return fail(ErrorCode::not_found, fmt::format("{} holds neither {}, {} nor a .gguf file",
                                                    quote(state.path.native()), kSingleFile, kIndexFile));
    }
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} holds {} .gguf files", quote(state.path.native()), found.size()),
                "name one of them");
  }

  Result<> open_gguf(const std::filesystem::path& path) {
    state.format = CheckpointFormat::gguf;
    SHOAL_TRY_VOID(map(path));
    auto header = parse_gguf(state.maps.front().bytes());
    if (!header) return fail_within(quote(path.filename().native()), std::move(header).error());
    SHOAL_TRY(const auto split_count, header->metadata.get_integer("split.count", 0, INT64_MAX));
    const int64_t parts = split_count.value_or(1);
    if (parts > 1) {
      return fail(
          ErrorCode::unsupported,
          fmt::format("{} is one of {} parts of a split GGUF file", quote(path.filename().native()), parts),
          "join them with llama-gguf-split --merge");
    }
    state.tensors.reserve(header->tensors.size());
    for (auto& tensor : header->tensors) {
      state.tensors.push_back({.name = std::move(tensor.name),
                               .type = tensor.type,
                               .shape = std::move(tensor.shape),
                               .file = 0,
                               .offset = tensor.offset,
                               .bytes = tensor.bytes});
    }
    state.gguf = std::move(header->metadata);
    return {};
  }

  Result<> open_safetensors() {
    state.format = CheckpointFormat::safetensors;
    SHOAL_TRY(const std::string config, read_text_file(state.path / "config.json", limits::kMaxConfigBytes));
    SHOAL_TRY(state.config, parse_json_object(config, "config.json"));
    if (is_there(state.path / kSingleFile)) return add_safetensors(std::string(kSingleFile));
    SHOAL_TRY(const ShardIndex index, read_shard_index(state.path));
    for (const auto& file : index.files) SHOAL_TRY_VOID(add_safetensors(file));
    return check_against(index);
  }

  Result<> add_safetensors(const std::string& name) {
    SHOAL_TRY_VOID(map(state.path / name));
    auto tensors = parse_safetensors(state.maps.back().bytes());
    if (!tensors) return fail_within(quote(name), std::move(tensors).error());
    const auto file = static_cast<uint32_t>(state.files.size() - 1);
    for (auto& tensor : *tensors) {
      const auto type = tensor_type_from_dtype(tensor.dtype);
      if (!type)
        return fail_within(fmt::format("{}: tensor {}", quote(name), quote(tensor.name)), type.error());
      state.tensors.push_back({.name = std::move(tensor.name),
                               .type = *type,
                               .shape = std::move(tensor.shape),
                               .file = file,
                               .offset = tensor.offset,
                               .bytes = tensor.bytes});
    }
    if (state.tensors.size() > limits::kMaxTensors) {
      return fail(ErrorCode::limit_exceeded,
                  fmt::format("{} tensors in the first {} files, over the limit of {}", state.tensors.size(),
                              state.files.size(), limits::kMaxTensors));
    }
    return {};
  }

  // Every tensor that the index names must be in the file it names.
  Result<> check_against(const ShardIndex& index) {
    std::vector<std::pair<std::string_view, uint32_t>> held;
    held.reserve(state.tensors.size());
    for (const auto& tensor : state.tensors) held.emplace_back(tensor.name, tensor.file);
    std::ranges::sort(held);
    for (const auto& [name, file] : index.tensors) {
      if (std::ranges::binary_search(held, std::pair(std::string_view(name), file))) continue;
      return fail(ErrorCode::malformed, fmt::format("{} says that tensor {} is in {}, but it is not",
                                                    kIndexFile, quote(name), quote(index.files[file])));
    }
    return {};
  }
};

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  CheckpointLoader loader{*state};
  SHOAL_TRY_VOID(loader.open());
  return Checkpoint(std::move(state));
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

CheckpointFormat Checkpoint::format() const {
  return state_->format;
}
const std::filesystem::path& Checkpoint::path() const {
  return state_->path;
}
const std::vector<std::filesystem::path>& Checkpoint::files() const {
  return state_->files;
}
const std::vector<TensorInfo>& Checkpoint::tensors() const {
  return state_->tensors;
}
const TensorInfo* Checkpoint::find(std::string_view name) const {
  return state_->find(name);
}
uint64_t Checkpoint::total_bytes() const {
  return state_->total_bytes;
}

ByteView Checkpoint::bytes(const TensorInfo& tensor) const {
  SHOAL_ASSERT(tensor.file < state_->maps.size());
  const ByteView file = state_->maps[tensor.file].bytes();
  SHOAL_ASSERT(tensor.offset <= file.size() && tensor.bytes <= file.size() - tensor.offset);
  return file.subspan(tensor.offset, tensor.bytes);
}

void Checkpoint::drop_pages(const TensorInfo& tensor) const {
  state_->maps[tensor.file].drop_pages(bytes(tensor));
}

const GgufMetadata* Checkpoint::gguf() const {
  const auto& metadata = state_->gguf;
  return metadata ? &*metadata : nullptr;
}
const JsonObject* Checkpoint::config() const {
  const auto& config = state_->config;
  return config ? &*config : nullptr;
}

Result<std::string> Checkpoint::read_sibling(std::string_view file_name, uint64_t limit) const {
  if (!is_plain_name(file_name)) {
    return fail(ErrorCode::invalid_argument, fmt::format("{} is not a plain file name", quote(file_name)));
  }
  return read_text_file(state_->directory / file_name, limit);
}

}  // namespace shoal::formats
