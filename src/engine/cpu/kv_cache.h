// What the stage's layers remember of each token, in pages of tokens. A page holds all layers, so that
// copying a page copies a token range whole. Inside a page, per layer:
//   heads:  keys as [kv_heads][page_tokens / 16][head_dim][16 tokens] (so that one vector load covers sixteen
//           tokens), then values as [kv_heads][page_tokens][head_dim rounded up to 16]
//   latent: [page_tokens] rows of latent_rank + latent_rope values, rounded up to 16
//   a layer with neither (its state is elsewhere) takes nothing
// q8 keeps int8 in this order, with an f16 scale per block of 32 values of a head's key or value or of a row:
// after a head's keys and after its values as [page_tokens / 16][blocks][16 tokens], and before each
// latent row.
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
  // Errors: unsupported (a shape, page_tokens not a multiple of 16), out_of_memory.
  static Result<KvCache> create(const KvConfig& config, std::span<const KvLayerShape> layers);
  static Result<uint64_t> page_bytes(const KvConfig& config, std::span<const KvLayerShape> layers);

  // Writes one token's keys and values, [kv_heads * head_dim] each, at `token` of a sequence with these
  // pages.
  void append(const Kernels& kernels, uint32_t layer, std::span<const uint32_t> pages, uint32_t token,
              const float* keys, const float* values);
  // The same for a latent layer: latent [latent_rank], rotated [latent_rope].
  void append_latent(const Kernels& kernels, uint32_t layer, std::span<const uint32_t> pages, uint32_t token,
                     const float* latent, const float* rotated);
  // The fields of a task that say where the keys and values of a head, or the rows, are.
  void locate(AttentionTask& task, uint32_t layer, uint32_t kv_head, std::span<const uint32_t> pages) const;
  void locate(LatentTask& task, uint32_t layer, std::span<const uint32_t> pages) const;
  void copy_page(uint32_t from, uint32_t to);

  const KvConfig& config() const { return config_; }
  size_t bytes() const { return storage_.size(); }
  uint32_t layer_count() const { return static_cast<uint32_t>(layers_.size()); }
  uint32_t kv_heads(uint32_t layer) const { return layers_[layer].kv_heads; }
  uint32_t head_dim(uint32_t layer) const { return layers_[layer].head_dim; }
  uint32_t latent_rank(uint32_t layer) const { return layers_[layer].latent_rank; }
  uint32_t latent_rope(uint32_t layer) const { return layers_[layer].latent_rope; }

 private:
  struct Layer {
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t latent_rank;
    uint32_t latent_rope;
    size_t key_offset;  // of the first head's keys, or of the rows
    size_t value_offset;
    size_t key_head_bytes;  // with scales
    size_t value_head_bytes;
    size_t key_scales;  // within a head's keys
    size_t value_scales;
    size_t row_bytes;
  };
  struct Layout {
    std::vector<Layer> layers;
    uint64_t page_bytes = 0;
  };
  static Result<Layout> lay_out(const KvConfig& config, std::span<const KvLayerShape> layers);
  static uint64_t lay_out_layer(const KvConfig& config, Layer& layer, uint64_t offset);  // where it ends

  uint8_t* page(uint32_t id) const;
  void append_head(const Kernels& kernels, const Layer& layer, size_t row, uint8_t* keys_at,
                   uint8_t* values_at, const float* keys, const float* values) const;

  KvConfig config_;
  std::vector<Layer> layers_;
  size_t page_bytes_ = 0;
  HugeBuffer storage_;
};

}  // namespace shoal::engine::cpu
