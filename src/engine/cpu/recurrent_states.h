// What recurrent layers remember: for every slot, which belongs to one living sequence at a time, the state
// floats of each such layer of the stage. A state holds all of its sequence's past in a fixed size, so there
// are no pages; whoever starts a sequence in a slot overwrites what is there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"

namespace shoal::engine {
struct KvLayerShape;
}

namespace shoal::engine::cpu {

class RecurrentStates {
 public:
  // Layers with state_floats 0 have none. Errors: invalid_argument (such layers but no slots), out_of_memory.
  static Result<RecurrentStates> create(uint32_t slots, std::span<const KvLayerShape> layers);

  // [floats(layer)], zero until somebody writes there.
  float* state(uint32_t layer, uint32_t slot) const;
  uint64_t floats(uint32_t layer) const { return layers_[layer].floats; }
  uint32_t layer_count() const { return static_cast<uint32_t>(layers_.size()); }
  // Slots that a step may name; 0 in a stage without recurrent layers.
  uint32_t slot_count() const { return slot_count_; }
  size_t bytes() const { return storage_.size(); }

 private:
  struct Layer {
    uint64_t floats;
    uint64_t offset;  // in a slot
  };
  std::vector<Layer> layers_;
  uint64_t slot_floats_ = 0;
  uint32_t slot_count_ = 0;
  HugeBuffer storage_;
};

}  // namespace shoal::engine::cpu
