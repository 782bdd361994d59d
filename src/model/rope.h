// Frequencies of rotary position embeddings (https://arxiv.org/abs/2104.09864), with the scalings that
// stretch a model's context. Computed in double and rounded once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace shoal::model {

// What rope_scaling or rope_parameters of a config.json, or rope.scaling.* of a GGUF, ask for.
struct RopeScaling {
  enum class Kind { none, linear, llama3, yarn };
  Kind kind = Kind::none;
  double factor = 1;
  double original_context = 8192;  // llama3 and yarn
  // llama3: wavelengths over original_context / low_frequency_factor are stretched by `factor`, those under
  // original_context / high_frequency_factor are kept, and those between are blended.
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  // yarn (https://arxiv.org/abs/2309.00071): pairs that turn more than fast_turns times over the original
  // context are kept, those that turn less than slow_turns times are stretched, and those between are blended
  // by their index. `whole_indices` rounds the ends of the blend outwards.
  double fast_turns = 32;
  double slow_turns = 1;
  bool whole_indices = true;
};

// theta^(-2 i / dimensions) for the ceil(dimensions / 2) pairs, scaled, then divided by `divisors` (one for
// each pair; empty: by 1). `malformed` when a frequency is not a finite positive float.
Result<std::vector<float>> inverse_frequencies(uint32_t dimensions, double theta, const RopeScaling& scaling,
                                               std::span<const float> divisors);

// What yarn multiplies cos and sin by: 0.1 * weight * ln(factor) + 1, and 1 for factors up to 1.
double yarn_magnitude(double factor, double weight = 1);
// What longrope multiplies them by (https://arxiv.org/abs/2402.13753): sqrt(1 + ln(factor) / ln(original)).
double long_rope_magnitude(double factor, double original_context);

}  // namespace shoal::model
