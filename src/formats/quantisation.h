// What config.json says about how a safetensors checkpoint is quantised: which tensors belong together and
// how many weights share a scale. Three ways are known (DeepSeek's FP8 in blocks, gpt-oss's MXFP4, MLX's
// group-wise weights); any other is an Error that names it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace shoal::formats {

enum class QuantisationMethod {
  none,   // floats only
  fp8,    // N F8_E4M3 [..., rows, columns], N_scale_inv [..., rows / block_rows, columns / block_columns]
  mxfp4,  // N_blocks U8 [..., rows, columns / 32, 16], N_scales U8 [..., rows, columns / 32]
  mlx,    // M.weight U32 [..., rows, words], M.scales and M.biases [..., rows, columns / group]
};

// How MLX quantised one module; `enabled` is false for one that config.json exempts.
struct MlxQuantisation {
  bool enabled = true;
  std::string mode = "affine";  // as in the file: "affine", "mxfp4", …
  int64_t bits = 4;
  int64_t group_size = 64;
};

struct Quantisation {
  QuantisationMethod method = QuantisationMethod::none;
  uint32_t block_rows = 0;                                      // of fp8, at least 1
  uint32_t block_columns = 0;                                   // of fp8, at least 1
  MlxQuantisation common;                                       // of mlx
  std::map<std::string, MlxQuantisation, std::less<>> modules;  // of mlx: what differs, by module path

  const MlxQuantisation& of_module(std::string_view path) const;
};

// Reads `quantization` and `quantization_config` (also inside `text_config`). `unsupported` with the method's
// name for one that is not known, `malformed` for fields that are missing or of another kind.
Result<Quantisation> read_quantisation(const JsonObject& config);

}  // namespace shoal::formats
