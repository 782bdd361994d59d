// The list of known architectures. A new one is a page beside this file and a line in decoder_spec.cpp's
// table. A reader maps configuration and tensor names onto a DecoderSpec; tensors.cpp then checks that every
// tensor named exists with the shape that the sizes imply, and that none is left over.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"
#include "model/fields.h"
#include "model/metadata.h"

namespace shoal::model {

// One page. The readers need not call refuse_unused(): that is done after them.
struct Architecture {
  std::string_view model_type;  // of config.json; empty: not in this format
  std::string_view class_name;  // what `architectures` of config.json must say, if it says anything
  std::string_view gguf_name;   // general.architecture; empty: not in this format
  Result<DecoderSpec> (*read_config)(Fields& fields, const formats::Checkpoint& checkpoint);
  Result<DecoderSpec> (*read_gguf)(Metadata& metadata);
  std::string_view other_class_name = {};  // is right too
};

extern const Architecture kDeepseek2Gguf;
extern const Architecture kDeepseekV2;
extern const Architecture kDeepseekV3;
extern const Architecture kGemma2;
extern const Architecture kGemma3;
extern const Architecture kGemma3Multimodal;
extern const Architecture kGlm4Moe;
extern const Architecture kGptOss;
extern const Architecture kKimiK2;
extern const Architecture kLlama;
extern const Architecture kMinistral;
extern const Architecture kMinistral3;
extern const Architecture kMistral;
extern const Architecture kMistral3;
extern const Architecture kMistral3Gguf;
extern const Architecture kMixtral;
extern const Architecture kPhi3;
extern const Architecture kQwen2;
extern const Architecture kQwen3;
extern const Architecture kQwen35;
extern const Architecture kQwen35Gguf;
extern const Architecture kQwen35Moe;
extern const Architecture kQwen35MoeGguf;
extern const Architecture kQwen35MoeText;
extern const Architecture kQwen35Text;
extern const Architecture kQwen3Moe;
extern const Architecture kQwen3Next;
extern const Architecture kQwen3NextGguf;

}  // namespace shoal::model
