// libFuzzer: a configuration that nobody vouches for becomes a spec or a typed Error. The input is the
// config.json beside small fixed weights, or a whole GGUF file when it starts like one.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <unistd.h>

#include "base/assert.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace {

namespace fs = std::filesystem;

// A directory of this process, gone with it.
class ModelDirectory {
 public:
  ModelDirectory() : path_(fs::temp_directory_path() / ("shoal-config-fuzz-" + std::to_string(getpid()))) {
    fs::create_directories(path_ / "weights");
    fs::copy_file(fs::path(SHOAL_SOURCE_DIR) / "tests/fixtures/bad/good_dir/model.safetensors",
                  path_ / "weights/model.safetensors", fs::copy_options::overwrite_existing);
  }
  ~ModelDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ModelDirectory(const ModelDirectory&) = delete;
  ModelDirectory& operator=(const ModelDirectory&) = delete;

  // What to open for this input.
  fs::path write(std::string_view input) const {
    const bool is_gguf = input.starts_with("GGUF");
    const fs::path file = is_gguf ? path_ / "model.gguf" : path_ / "weights/config.json";
    std::ofstream(file, std::ios::binary | std::ios::trunc) << input;
    return is_gguf ? file : file.parent_path();
  }

 private:
  fs::path path_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ModelDirectory directory;
  const auto checkpoint = shoal::formats::Checkpoint::open(
      directory.write(std::string_view(reinterpret_cast<const char*>(data), size)));
  if (!checkpoint) return 0;
  shoal::model::end_of_sequence_ids(*checkpoint);
  const auto spec = shoal::model::read_decoder_spec(*checkpoint);
  if (!spec) return 0;
  SHOAL_ASSERT(spec->vocabulary_size > 0 && spec->layer_count() > 0);
  SHOAL_ASSERT(shoal::model::model_cost(*spec, *checkpoint).has_value());
  return 0;
}
