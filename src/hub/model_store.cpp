#include "hub/model_store.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>

#include "base/log.h"
#include "base/system.h"
#include "formats/checkpoint.h"
#include "hub/digest.h"

namespace shoal::hub {
namespace {

namespace fs = std::filesystem;

// The bundled file under the name that users know it by.
constexpr std::string_view kDemoFile = "shoal-demo-q8_0";
constexpr std::string_view kDemoName = "shoal-demo";

bool looks_like_checkpoint(const fs::path& folder) {
  std::error_code error;
  if (fs::is_regular_file(folder / "config.json", error)) return true;
  size_t gguf_files = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    gguf_files += entry.path().extension() == ".gguf";
  return gguf_files == 1;
}

// Size and time of all files directly in it (or of the file), so that a changed model is examined again.
std::string fingerprint_of(const fs::path& path) {
  std::string text;
  std::error_code error;
  const auto add = [&](const fs::path& file) {
    text += fmt::format("{} {} {}\n", file.filename().string(), fs::file_size(file, error),
                        fs::last_write_time(file, error).time_since_epoch().count());
  };
  if (!fs::is_directory(path, error)) {
    add(path);
    return text;
  }
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error))
    if (entry.is_regular_file(error)) files.push_back(entry.path());
  std::ranges::sort(files);
  std::ranges::for_each(files, add);
  return text;
}

int64_t unix_seconds_of(const fs::path& file) {
  std::error_code error;
  const auto time = fs::last_write_time(file, error);
  if (error) return 0;
  const auto system = std::chrono::file_clock::to_sys(time);
  return std::chrono::duration_cast<std::chrono::seconds>(system.time_since_epoch()).count();
}

std::string architecture_of(const formats::Checkpoint& checkpoint) {
  if (checkpoint.gguf() != nullptr) {
    const auto name = checkpoint.gguf()->get_string("general.architecture");
    return name && *name ? **name : "unknown";
  }
  const auto name = checkpoint.config() != nullptr ? get_string(*checkpoint.config(), "model_type")
                                                   : Result<std::optional<std::string>>(std::nullopt);
  return name && *name ? **name : "unknown";
}

Result<StoredModel> read_model(const std::string& name, const fs::path& path) {
  SHOAL_TRY(const formats::Checkpoint checkpoint, formats::Checkpoint::open(path));
  StoredModel model{.name = name, .path = path, .architecture = architecture_of(checkpoint), .digest = {}};
  for (const fs::path& file : checkpoint.files()) {
    std::error_code error;
    const uintmax_t size = fs::file_size(file, error);
    model.bytes += error ? 0 : size;
    model.created = std::max(model.created, unix_seconds_of(file));
  }
  SHOAL_TRY(model.digest, model_digest(checkpoint));
  return model;
}

}  // namespace

ModelStore::ModelStore(std::vector<fs::path> roots) : roots_(std::move(roots)) {}

std::vector<fs::path> ModelStore::default_roots(const fs::path& data_directory) {
  std::vector<fs::path> roots;
  if (const char* folders = std::getenv("SHOAL_MODELS"); folders != nullptr) {
    std::string_view rest = folders;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(':'), rest.size());
      if (end > 0) roots.emplace_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  roots.push_back(data_directory / "models");
  const fs::path folder = executable_path().parent_path();
  roots.push_back(folder / "../share/shoal/models");
  roots.push_back(folder / "../../models/demo");
  return roots;
}

// Earlier roots win. A root that is a checkpoint folder itself counts as well (SHOAL_MODELS=/path/of/model).
std::map<std::string, fs::path> ModelStore::candidates() const {
  std::map<std::string, fs::path> found;
  for (const fs::path& root : roots_) {
    std::error_code error;
    if (fs::is_regular_file(root / "config.json", error))
      found.emplace(fs::weakly_canonical(root).filename(), root);
    std::vector<fs::path> children;
    for (const fs::directory_entry& entry : fs::directory_iterator(root, error))
      children.push_back(entry.path());
    std::ranges::sort(children);
    for (const fs::path& child : children) {
      if (child.extension() == ".gguf" && fs::is_regular_file(child, error)) {
        const std::string stem = child.stem().string();
        found.emplace(stem == kDemoFile ? std::string(kDemoName) : stem, child);
      } else if (fs::is_directory(child, error) && looks_like_checkpoint(child)) {
        found.emplace(child.filename().string(), child);
      }
    }
  }
  const std::scoped_lock lock(mutex_);
  for (const auto& [name, path] : given_paths_) found.emplace(name, path);
  return found;
}

Result<StoredModel> ModelStore::examine(const std::string& name, const fs::path& path) const {
  const std::string fingerprint = fingerprint_of(path);
  {
    const std::scoped_lock lock(mutex_);
    const auto known = examined_.find(path);
    if (known != examined_.end() && known->second.fingerprint == fingerprint) return known->second.model;
  }
  Result<StoredModel> model = read_model(name, path);
  if (!model) log_warning("hub", "cannot use model '{}': {}", name, model.error().text());
  const std::scoped_lock lock(mutex_);
  examined_.insert_or_assign(path, Examined{fingerprint, model});
  return model;
}

std::vector<StoredModel> ModelStore::list() const {
  std::vector<StoredModel> models;
  for (const auto& [name, path] : candidates())
    if (Result<StoredModel> model = examine(name, path)) models.push_back(*std::move(model));
  return models;
}

Result<StoredModel> ModelStore::resolve(std::string_view name) const {
  const std::map<std::string, fs::path> known = candidates();
  constexpr std::string_view kLatest = ":latest";
  const std::string_view base = name.ends_with(kLatest) ? name.substr(0, name.size() - kLatest.size()) : name;
  if (const auto found = known.find(std::string(base)); found != known.end())
    return examine(found->first, found->second);

  std::error_code error;
  if (!name.empty() && fs::exists(fs::path(name), error)) {
    const std::string given(name);
    const fs::path path = fs::absolute(fs::path(name), error);
    SHOAL_TRY(StoredModel model, examine(given, path));
    const std::scoped_lock lock(mutex_);
    given_paths_.emplace(model.name, path);
    return model;
  }
  std::vector<std::string> names;
  for (const auto& [known_name, path] : known) names.push_back(known_name);
  return fail(ErrorCode::not_found, fmt::format("model '{}' is not here", name),
              nearest_names_hint(name, names));
}

Result<StoredModel> ModelStore::resolve_digest(std::string_view digest) const {
  for (StoredModel& model : list())
    if (model.digest == digest) return std::move(model);
  return fail(ErrorCode::not_found, fmt::format("no model with digest {} is here", digest.substr(0, 12)));
}

}  // namespace shoal::hub
