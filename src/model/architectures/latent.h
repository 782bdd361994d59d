// Multi-head latent attention of DeepSeek-V2 and its relatives, for the pages that map it from config.json
// and from GGUF.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

// The two norms inside take no epsilon from the configuration.
inline constexpr float kLatentNormEpsilon = 1e-6F;

// The [H*(n+v), R] matrix that makes keys and values out of latents, per head n rows of keys and v of values,
// as the absorbed matrices of each head. `attention` has its sizes.
void name_joint_up(LatentAttentionSpec& attention, const std::string& name,
                   const formats::Checkpoint& checkpoint);
// Two stacks instead: keys [H, R, n] and values [H, v, R].
void name_split_up(LatentAttentionSpec& attention, const std::string& keys, const std::string& values,
                   const formats::Checkpoint& checkpoint);

}  // namespace shoal::model
