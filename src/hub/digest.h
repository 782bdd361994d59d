// Tells whether two machines hold the same model without reading all of it. Internal to the room.
#pragma once

#include <string>

#include "base/result.h"
#include "formats/checkpoint.h"

namespace shoal::hub {

// SHA-256 over every file's size, its header (up to the first tensor) and 64 samples of 4 KiB spread evenly
// over it, so that a fine-tune of the same shape differs. File names do not count.
Result<std::string> model_digest(const formats::Checkpoint& checkpoint);

}  // namespace shoal::hub
