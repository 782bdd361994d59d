#include "model/decoder_spec.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/layout.h"
#include "model/architectures/architecture.h"
#include "model/tensors.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

const std::array kArchitectures = {
    &kDeepseek2Gguf, &kDeepseekV2, &kDeepseekV3,   &kGemma2,       &kGemma3,        &kGemma3Multimodal,
    &kGlm4Moe,       &kGptOss,     &kKimiK2,       &kLlama,        &kMinistral,     &kMinistral3,
    &kMistral,       &kMistral3,   &kMistral3Gguf, &kMixtral,      &kPhi3,          &kQwen2,
    &kQwen3,         &kQwen35,     &kQwen35Gguf,   &kQwen35Moe,    &kQwen35MoeGguf, &kQwen35MoeText,
    &kQwen35Text,    &kQwen3Moe,   &kQwen3Next,    &kQwen3NextGguf};

// The names of one kind, for an error's hint.
std::string known_names(std::string_view Architecture::* kind) {
  std::vector<std::string_view> names;
  for (const Architecture* architecture : kArchitectures)
    if (!(architecture->*kind).empty()) names.push_back(architecture->*kind);
  return fmt::format("shoal runs models of type {}", fmt::join(names, ", "));
}

Result<const Architecture*> find_architecture(std::string_view field, std::string_view name,
                                              std::string_view Architecture::* kind) {
  for (const Architecture* architecture : kArchitectures)
    if (!name.empty() && architecture->*kind == name) return architecture;
  return fail(ErrorCode::unsupported,
              fmt::format("{} is {}, which is not supported", field, formats::quote(name)),
              known_names(kind));
}

// A file whose configuration ties the head to the embedding, and that holds a head all the same, means the
// one that it holds: `transformers` ties two weights only where they are equal.
void settle_head(DecoderSpec& spec, const Checkpoint& checkpoint) {
  if (!spec.tied()) return;
  for (const char* head : {"lm_head.weight", "language_model.lm_head.weight"})
    if (checkpoint.find(head)) spec.head = TensorRef(head);
}

Result<DecoderSpec> read_from_config(const JsonObject& config, const Checkpoint& checkpoint) {
  const auto name = require_string(config, "model_type");
  if (!name)
    return formats::fail_within("config.json", Error{ErrorCode::malformed, name.error().message, ""});
  SHOAL_TRY(const Architecture* architecture,
            find_architecture("config.json: 'model_type'", *name, &Architecture::model_type));
  Fields fields(config, *name);
  SHOAL_TRY(const std::vector<std::string> classes, fields.get_texts("architectures"));
  if (!classes.empty() && classes.front() != architecture->class_name &&
      classes.front() != architecture->other_class_name) {
    return fail(ErrorCode::unsupported,
                fmt::format("config.json: 'architectures' is {}, only {} is supported for {}",
                            formats::quote(classes.front()), architecture->class_name, *name));
  }
  SHOAL_TRY(DecoderSpec spec, architecture->read_config(fields, checkpoint));
  SHOAL_TRY_VOID(fields.refuse_unused());
  settle_head(spec, checkpoint);
  return spec;
}

Result<DecoderSpec> read_from_gguf(const Checkpoint& checkpoint) {
  SHOAL_TRY(const std::string name, checkpoint.gguf()->require_string("general.architecture"));
  SHOAL_TRY(const Architecture* architecture,
            find_architecture("'general.architecture'", name, &Architecture::gguf_name));
  Metadata metadata(checkpoint, name);
  SHOAL_TRY(DecoderSpec spec, architecture->read_gguf(metadata));
  SHOAL_TRY_VOID(metadata.refuse_unused());
  for (const char* what_sees : {"v.", "mm."}) spec.ignored_prefixes.emplace_back(what_sees);
  return spec;
}

}  // namespace

Result<DecoderSpec> read_decoder_spec(const Checkpoint& checkpoint) {
  auto spec =
      checkpoint.config() ? read_from_config(*checkpoint.config(), checkpoint) : read_from_gguf(checkpoint);
  if (!spec) return spec;
  SHOAL_TRY_VOID(check_tensors(*spec, checkpoint));
  return spec;
}

}  // namespace shoal::model
