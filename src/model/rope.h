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
  enum class Kind { none, linear, llama3 };
  Kind kind = Kind::none;
  double factor = 1;
  // llama3 only: wavelengths over original_context / low_frequency_factor are stretched by `factor`, those
  // under original_context / high_frequency_factor are kept, and those between are blended.
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_context = 8192;
};

// theta^(-2 i / dimensions) for i in [0, dimensions / 2), scaled, then divided by `divisors` (empty: by 1).
// `malformed` when a frequency is not a finite positive float. `dimensions` is even.
Result<std::vector<float>> inverse_frequencies(uint32_t dimensions, double theta, const RopeScaling& scaling,
                                               std::span<const float> divisors);

}  // namespace shoal::model
