// How much memory a stage needs to compute a step, for the planner: what the decoder keeps alive at once of a
// row, in the layer that keeps most.
#pragma once

#include <cstdint>

#include "model/decoder_spec.h"

namespace shoal::serving {

// Bytes of activations in a step of `rows` rows; logits not counted.
uint64_t step_scratch_bytes(const model::DecoderSpec& spec, uint64_t rows);

}  // namespace shoal::serving
