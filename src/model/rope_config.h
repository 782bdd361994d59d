// Rotary positions from a configuration: config.json in both styles (rope_theta and rope_scaling, or
// rope_parameters), and GGUF metadata.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "model/decoder_spec.h"
#include "model/fields.h"
#include "model/metadata.h"

namespace shoal::model {

struct RopeOptions {
  engine::RopePairs pairs = engine::RopePairs::halves;
  uint32_t head_dim = 0;  // values of a head that positions may rotate
  double default_theta = 10000;
};

Result<RopeSpec> read_rope(Fields& fields, const RopeOptions& options);
// Also the tensor rope_freqs.weight, if there is one.
Result<RopeSpec> read_rope(Metadata& metadata, const RopeOptions& options);

}  // namespace shoal::model
