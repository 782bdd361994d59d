// What `shoal show` says of a model, read from its headers: no weights, no node.
#pragma once

#include <string>

#include "base/json.h"
#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::cli {

// Members that do not apply are absent; a tokenizer or chat template that cannot be used is an "error" in its
// place. Errors: those of the model's configuration and tensors, as read_decoder_spec() and model_cost() give
// them.
Result<JsonObject> model_summary(const std::string& name, const formats::Checkpoint& checkpoint);

// The same for people.
std::string summary_text(const JsonObject& summary);

}  // namespace shoal::cli
