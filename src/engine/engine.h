// The small virtual border between the runtime and what computes: one engine holds one rank's weights and KV pages
// and runs steps. Virtual per step, static per op (see backend.h). Not thread-safe: one thread drives an engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/step.h"

namespace shoal::engine {

// A contiguous range of layers of a model. A one-stage pipeline is [0, layer_count) with both ends.
struct StageRange {
  uint32_t first_layer = 0;
  uint32_t end_layer = 0;     // one past the last
  bool embeds = true;         // starts from token ids rather than hidden rows
  bool heads = true;          // ends in logits rather than hidden rows
};

// A rank's share of each matrix of its stage. {0, 1} is the whole.
struct TensorShard {
  uint32_t rank = 0;
  uint32_t count = 1;
  std::vector<uint32_t> shares = {};  // what each rank should hold, as weights from 1 on; empty: equal shares
};

enum class KvType : uint8_t { f32, f16, q8 };

struct KvConfig {
  KvType type = KvType::f16;
  uint32_t page_tokens = 32;
  uint32_t page_count = 0;
  uint32_t state_slots = 0;  // sequences that may be alive at once; used by layers with a recurrent state
};

struct EngineMemory {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t scratch_bytes = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual uint32_t hidden_size() const = 0;
  virtual uint32_t vocabulary_size() const = 0;
  virtual EngineMemory memory() const = 0;
  virtual const KvConfig& kv() const = 0;

  // Runs one step through the stage's layers. `hidden_in` is [rows, hidden_size] f32 (empty when the stage embeds).
  // Returns [rows, hidden_size] f32, or, when the stage heads, [output_rows, vocabulary_size] logits.
  // The returned span is valid until the next call.
  virtual Result<std::span<const float>> step(const StepView& step, std::span<const float> hidden_in) = 0;

  // Copies whole pages inside the cache (for a shared prefix that a sequence is about to extend).
  virtual void copy_page(uint32_t from, uint32_t to) = 0;
};

}  // namespace shoal::engine
