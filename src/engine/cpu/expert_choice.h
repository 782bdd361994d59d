// Which experts serve a row, from its scores: plain comparisons, the same on every instruction set. Whatever
// the values (NaN, infinities), `used` different experts are chosen.
#pragma once

#include <cstdint>
#include <span>

#include "engine/backend.h"

namespace shoal::engine::cpu {

// Chooses op.used experts, best first, for one row. `keys` [E] decide, groups by op.group_score of their
// keys; ties go to the lower index; a NaN counts as the lowest. Chosen groups hold at least op.used experts
// (asserted by the caller).
void choose_experts(const RouterOp& op, std::span<const float> keys, std::span<uint32_t> chosen);

// weights[i] = scores[chosen[i]], normalised and scaled as `op` says. The sum runs in the order of `chosen`.
void weigh_experts(const RouterOp& op, std::span<const float> scores, std::span<const uint32_t> chosen,
                   std::span<float> weights);

}  // namespace shoal::engine::cpu
