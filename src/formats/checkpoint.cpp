#include "formats/checkpoint.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <system_error>

#include "base/assert.h"
#include "base/file.h"
#include "base/limits.h"
#include "formats/gguf_parts.h"
#include "formats/join_parts.h"
#include "formats/layout.h"
#include "formats/quantisation.h"
#include "formats/safetensors.h"
#include "formats/shard_index.h"

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

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error) && !error;
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
    const bool has_weights = is_there(state.path / kSingleFile) || is_there(state.path / kShardIndexFile);
    return finish(has_weights ? open_safetensors() : open_only_gguf());
  }

  // What both formats need at the end.
  Result<> finish(Result<> opened) {
    if (!opened) return opened;
    auto name_of = [this](uint32_t index) -> std::string_view { return state.tensors[index].name; };
    state.by_name.resize(state.tensors.size());
    for (uint32_t i = 0; i < state.by_name.size(); ++i) {
      state.by_name[i] = i;
      state.total_bytes += state.tensors[i].stored_bytes();
    }
    std::ranges::sort(state.by_name, {}, name_of);
    const auto twin = std::ranges::adjacent_find(state.by_name, {}, name_of);
    if (twin == state.by_name.end()) return {};
    return fail(ErrorCode::malformed, fmt::format("tensor {} appears twice", quote(name_of(*twin))));
  }

  Result<> map(const std::filesystem::path& path) {
    SHOAL_TRY(MappedFile file, MappedFile::open(path));
    state.files.push_back(path);
    state.maps.push_back(std::move(file));
    return {};
  }

  Result<> open_only_gguf() {
    auto found = find_only_gguf(state.path);
    if (found) return open_gguf(*found);
    if (found.error().code != ErrorCode::not_found) return std::unexpected(std::move(found).error());
    return fail(ErrorCode::not_found, fmt::format("{} holds neither {}, {} nor a .gguf file",
                                                  quote(state.path.native()), kSingleFile, kShardIndexFile));
  }

  Result<> open_gguf(const std::filesystem::path& path) {
    state.format = CheckpointFormat::gguf;
    std::vector<GgufHeader> parts(1);
    SHOAL_TRY(parts.front(), add_gguf(path));
    SHOAL_TRY(const auto paths, list_parts(path, parts.front().metadata));
    if (paths.size() > 1) {
      parts.clear();
      state.files.clear();
      state.maps.clear();
      for (const auto& part : paths) {
        if (!is_there(part)) return missing_part(part, paths.size());
        SHOAL_TRY(GgufHeader header, add_gguf(part));
        parts.push_back(std::move(header));
      }
    }
    SHOAL_TRY_VOID(check_parts(parts));
    size_t count = 0;
    for (const auto& part : parts) count += part.tensors.size();
    SHOAL_TRY_VOID(check_tensor_count(count));
    state.tensors.reserve(count);
    for (uint32_t file = 0; file < parts.size(); ++file) {
      for (auto& tensor : parts[file].tensors) {
        state.tensors.push_back({.name = std::move(tensor.name),
                                 .type = tensor.type,
                                 .shape = std::move(tensor.shape),
                                 .file = file,
                                 .offset = tensor.offset,
                                 .bytes = tensor.bytes});
      }
    }
    state.gguf = std::move(parts.front().metadata);
    return {};
  }

  Result<GgufHeader> add_gguf(const std::filesystem::path& path) {
    SHOAL_TRY_VOID(map(path));
    auto header = parse_gguf(state.maps.back().bytes());
    if (!header) return fail_within(quote(path.filename().native()), std::move(header).error());
    return header;
  }

  static std::unexpected<Error> missing_part(const std::filesystem::path& path, size_t count) {
    return fail(
        ErrorCode::not_found,
        fmt::format("{} is missing, one of the model's {} parts", quote(path.filename().native()), count),
        "fetch all parts into one directory");
  }

  Result<> open_safetensors() {
    state.format = CheckpointFormat::safetensors;
    SHOAL_TRY(const std::string config,
              read_text_file(state.path / "config.json", limits::kMaxModelConfigBytes));
    SHOAL_TRY(state.config, parse_json_object(config, "config.json"));
    SHOAL_TRY(const Quantisation quantisation, read_quantisation(*state.config));
    std::vector<StoredTensor> stored;
    if (is_there(state.path / kSingleFile)) {
      SHOAL_TRY_VOID(add_safetensors(std::string(kSingleFile), stored));
    } else {
      SHOAL_TRY(const ShardIndex index, read_shard_index(state.path));
      for (const auto& file : index.files) SHOAL_TRY_VOID(add_safetensors(file, stored));
      SHOAL_TRY_VOID(check_against_index(stored, index));
    }
    SHOAL_TRY(state.tensors, join_parts(std::move(stored), quantisation));
    return {};
  }

  Result<> add_safetensors(const std::string& name, std::vector<StoredTensor>& stored) {
    SHOAL_TRY_VOID(map(state.path / name));
    auto tensors = parse_safetensors(state.maps.back().bytes());
    if (!tensors) return fail_within(quote(name), std::move(tensors).error());
    const auto file = static_cast<uint32_t>(state.files.size() - 1);
    const size_t count = stored.size() + tensors->size();
    SHOAL_TRY_VOID(check_tensor_count(count));
    if (count > stored.capacity()) stored.reserve(std::max(count, stored.size() * 2));
    for (auto& tensor : *tensors) stored.push_back({std::move(tensor), file});
    return {};
  }

  Result<> check_tensor_count(size_t count) const {
    if (count <= limits::kMaxTensors) return {};
    return fail(ErrorCode::limit_exceeded,
                fmt::format("{} tensors in the first {} files, over the limit of {}", count,
                            state.files.size(), limits::kMaxTensors));
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
  if (tensor.scales) drop_pages(*tensor.scales);
  if (tensor.biases) drop_pages(*tensor.biases);
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
