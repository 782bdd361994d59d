// Keys and values of the stage's layers in pages of tokens. A page holds all layers, so that copying a page
// copies a token range whole. Inside a page, per layer: keys as [kv_heads][page_tokens / 16][head_dim][16
// tokens] (so that one vector load covers sixteen tokens), then values as [kv_heads][page_tokens][head_dim
// rounded up to 16].
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "engine/cpu/kernel_table.h"
#include "engine/engine.h"

namespace shoal::engine {
struct KvLayerShape;
}

namespace shoal::engine::cpu {

class KvCache {
 public:
  // Errors: unsupported (q8, page_tokens not a multiple of 16), out_of_memory.
  static Result<KvCache> create(const KvConfig& config, std::span<const KvLayerShape> layers);
  static Result<uint64_t> page_bytes(const KvConfig& config, std::span<const KvLayerShape> layers);

  // Writes one token's keys and values, [kv_heads * head_dim] each, at `token` of a sequence with these
  // pages.
  void append(const Kernels& kernels, uint32_t layer, std::span<const uint32_t> pages, uint32_t token,
              const float* keys, const float* values);
  // The fields of a task that say where the keys and values of a head are.
  void locate(AttentionTask& task, uint32_t layer, uint32_t kv_head, std::span<const uint32_t> pages) const;
  void copy_page(uint32_t from, uint32_t to);

  const KvConfig& config() const { return config_; }
  size_t bytes() const { return storage_.size(); }
  uint32_t layer_count() const { return static_cast<uint32_t>(layers_.size()); }
  uint32_t kv_heads(uint32_t layer) const { return layers_[layer].kv_heads; }
  uint32_t head_dim(uint32_t layer) const { return layers_[layer].head_dim; }

 private:
  struct Layer {
    uint32_t kv_heads;
    uint32_t head_dim;
    size_t key_offset;
    size_t value_offset;
    size_t key_head_bytes;
    size_t value_head_bytes;
  };
  struct Layout {
    std::vector<Layer> layers;
    uint64_t page_bytes = 0;
  };
  static Result<Layout> lay_out(const KvConfig& config, std::span<const KvLayerShape> layers);

  uint8_t* page(uint32_t id) const;

  KvConfig config_;
  std::vector<Layer> layers_;
  size_t page_bytes_ = 0;
  HugeBuffer storage_;
};

}  // namespace shoal::engine::cpu
