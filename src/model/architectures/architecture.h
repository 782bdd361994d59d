// The list of known architectures. A new one is a page beside this file and a line in decoder_spec.cpp's
// table. A reader maps configuration and tensor names onto a DecoderSpec; decoder_spec.cpp then checks that
// every tensor named exists with the shape that the sizes imply, and that none is left over.
#pragma once

#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

struct Architecture {
  std::string_view name;        // `model_type` of config.json and `general.architecture` of GGUF
  std::string_view class_name;  // what `architectures` of config.json must say, if it says anything
  Result<DecoderSpec> (*read_config)(const JsonObject& config);
  Result<DecoderSpec> (*read_gguf)(const formats::Checkpoint& checkpoint);
};

extern const Architecture kLlama;
extern const Architecture kQwen3;

}  // namespace shoal::model
