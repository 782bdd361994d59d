#include "engine/cpu/recurrent_states.h"

#include <fmt/format.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "engine/cpu/cpu_backend.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint64_t kLineFloats = 16;  // a layer's state starts a cache line

}  // namespace

Result<RecurrentStates> RecurrentStates::create(uint32_t slots, std::span<const KvLayerShape> layers) {
  RecurrentStates states;
  auto too_large = [&] {
    return fail(ErrorCode::out_of_memory,
                fmt::format("recurrent states of {} sequences are larger than memory can be", slots),
                "allow fewer sequences at once");
  };
  for (const KvLayerShape& layer : layers) {
    states.layers_.push_back({layer.state_floats, states.slot_floats_});
    if (layer.state_floats > UINT64_MAX - kLineFloats) return too_large();
    auto padded = (layer.state_floats + kLineFloats - 1) / kLineFloats * kLineFloats;
    auto sum = checked_add<uint64_t>(states.slot_floats_, padded);
    if (!sum) return too_large();
    states.slot_floats_ = *sum;
  }
  if (states.slot_floats_ == 0) return states;
  if (slots == 0) {
    return fail(ErrorCode::invalid_argument, "a model with recurrent layers needs at least one state slot");
  }
  auto floats = checked_multiply<uint64_t>(states.slot_floats_, slots);
  auto bytes = floats ? checked_multiply<size_t>(*floats, sizeof(float)) : std::nullopt;
  if (!bytes) return too_large();
  states.slot_count_ = slots;
  SHOAL_TRY(states.storage_, HugeBuffer::allocate(*bytes, "recurrent states"));
  return states;
}

float* RecurrentStates::state(uint32_t layer, uint32_t slot) const {
  SHOAL_ASSERT(layer < layers_.size() && slot < slot_count_);
  return reinterpret_cast<float*>(storage_.data()) + slot * slot_floats_ + layers_[layer].offset;
}

}  // namespace shoal::engine::cpu
