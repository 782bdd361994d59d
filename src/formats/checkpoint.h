// A model on disk, whatever its format: named tensors in memory maps, and the configuration beside them.
// Opening reads headers only and checks every one of them (bytes of these files are hostile): after open(), each
// TensorInfo lies inside its file, has whole blocks, and no two tensors overlap or share a name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"
#include "base/result.h"
#include "formats/gguf.h"
#include "formats/tensor_type.h"

namespace shoal::formats {

struct TensorInfo {
  std::string name;
  TensorType type;
  std::vector<uint64_t> shape;  // outermost first, as in safetensors: a matrix is [rows (outputs), columns (inputs)];
                                // in values, however they are packed
  uint32_t file;                // index into Checkpoint::files()
  uint64_t offset;              // bytes from the start of that file
  uint64_t bytes;

  // Of types whose scales are tensors of their own; open() joins them to their weights under the weights' name and
  // checks their shapes: [..., rows / group_rows, columns / group_columns], rounded up.
  std::shared_ptr<const TensorInfo> scales = nullptr;  // f8_e4m3: f32 or bf16; mxfp4_pairs: e8m0; affine: f16, bf16 or f32
  std::shared_ptr<const TensorInfo> biases = nullptr;  // affine, of the scales' type and shape
  uint32_t group_rows = 1;                   // rows that share a scale: of f8_e4m3
  uint32_t group_columns = 0;                // neighbours of a row that share a scale

  uint64_t stored_bytes() const { return bytes + (scales ? scales->bytes : 0) + (biases ? biases->bytes : 0); }
};

enum class CheckpointFormat { gguf, safetensors };

class Checkpoint {
 public:
  // `path` is a .gguf file, or a directory that holds config.json and model.safetensors (or the sharded form with
  // model.safetensors.index.json), or a directory that holds exactly one model in .gguf files. Any part of a split GGUF
  // opens all of it.
  static Result<Checkpoint> open(const std::filesystem::path& path);
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  CheckpointFormat format() const;
  const std::filesystem::path& path() const;             // as given to open()
  const std::vector<std::filesystem::path>& files() const;
  const std::vector<TensorInfo>& tensors() const;
  const TensorInfo* find(std::string_view name) const;   // nullptr when absent
  ByteView bytes(const TensorInfo& tensor) const;        // mapped, unaligned; valid while the Checkpoint lives
  void drop_pages(const TensorInfo& tensor) const;       // after its weights were repacked
  uint64_t total_bytes() const;                          // of all tensors

  const GgufMetadata* gguf() const;      // nullptr unless format() is gguf
  const JsonObject* config() const;      // config.json; nullptr unless format() is safetensors
  // generation_config.json, tokenizer.json, … beside the weights; not_found when there is none.
  Result<std::string> read_sibling(std::string_view file_name, uint64_t limit) const;

 private:
  friend struct CheckpointLoader;
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal::formats
