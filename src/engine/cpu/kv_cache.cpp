#include "engine/cpu/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "engine/cpu/cpu_backend.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint32_t kMaxHeadDim = 4096;

size_t value_bytes_of(KvType type) {
  switch (type) {
    case KvType::f32:
      return 4;
    case KvType::f16:
      return 2;
    case KvType::q8:
      return 1;
  }
  return 4;
}

size_t padded(size_t values) {
  return (values + 15) / 16 * 16;
}

Result<void> check_shape(const KvLayerShape& shape) {
  const bool heads = shape.kv_heads != 0, latent = shape.latent_rank != 0;
  if (heads &&
      (latent || shape.head_dim == 0 || shape.head_dim > kMaxHeadDim || shape.kv_heads > limits::kMaxHeads)) {
    return fail(ErrorCode::unsupported,
                fmt::format("a layer with {} kv heads of {} values", shape.kv_heads, shape.head_dim));
  }
  if (latent && uint64_t{shape.latent_rank} + shape.latent_rope > kMaxLatentValues) {
    return fail(ErrorCode::unsupported, fmt::format("a layer with latent rows of {} and {} values",
                                                    shape.latent_rank, shape.latent_rope));
  }
  return {};
}

}  // namespace

uint64_t KvCache::lay_out_layer(const KvConfig& config, Layer& layer, uint64_t offset) {
  const uint64_t tokens = config.page_tokens, value_bytes = value_bytes_of(config.type);
  const auto scale_bytes = [&](uint64_t values) {
    return config.type == KvType::q8 ? 2 * cache_blocks(values) : 0;
  };
  layer.key_offset = offset;
  if (layer.latent_rank != 0) {
    const uint64_t values = uint64_t{layer.latent_rank} + layer.latent_rope;
    layer.row_bytes = padded(values) * value_bytes + scale_bytes(values);
    // Sixteen scales are loaded at once, from wherever they begin.
    if (config.type == KvType::q8)
      layer.row_bytes = std::max<size_t>(layer.row_bytes, scale_bytes(values) + 32);
    return offset + tokens * layer.row_bytes;
  }
  layer.key_scales = tokens * layer.head_dim * value_bytes;
  layer.value_scales = tokens * padded(layer.head_dim) * value_bytes;
  layer.key_head_bytes = layer.key_scales + tokens * scale_bytes(layer.head_dim);
  layer.value_head_bytes = layer.value_scales + tokens * scale_bytes(layer.head_dim);
  layer.value_offset = offset + layer.kv_heads * layer.key_head_bytes;
  return layer.value_offset + layer.kv_heads * layer.value_head_bytes;
}

Result<KvCache::Layout> KvCache::lay_out(const KvConfig& config, std::span<const KvLayerShape> shapes) {
  if (config.page_tokens == 0 || config.page_tokens % 16 != 0 || config.page_tokens > 4096) {
    return fail(ErrorCode::unsupported,
                fmt::format("KV pages of {} tokens: the CPU engine needs a multiple of 16 up to 4096",
                            config.page_tokens));
  }
  Layout layout;
  for (const KvLayerShape& shape : shapes) {
    SHOAL_TRY_VOID(check_shape(shape));
    Layer layer = {};
    layer.kv_heads = shape.kv_heads;
    layer.head_dim = shape.kv_heads == 0 ? 0 : shape.head_dim;
    layer.latent_rank = shape.latent_rank;
    layer.latent_rope = shape.latent_rank == 0 ? 0 : shape.latent_rope;
    layout.page_bytes = (lay_out_layer(config, layer, layout.page_bytes) + 63) / 64 * 64;
    layout.layers.push_back(layer);
  }
  return layout;
}

Result<uint64_t> KvCache::page_bytes(const KvConfig& config, std::span<const KvLayerShape> layers) {
  SHOAL_TRY(Layout layout, lay_out(config, layers));
  return layout.page_bytes;
}

Result<KvCache> KvCache::create(const KvConfig& config, std::span<const KvLayerShape> layers) {
  SHOAL_TRY(Layout layout, lay_out(config, layers));
  auto bytes = checked_multiply<uint64_t>(layout.page_bytes, config.page_count);
  if (!bytes) {
    return fail(ErrorCode::out_of_memory,
                fmt::format("a KV cache of {} pages of {} is larger than memory can be", config.page_count,
                            format_bytes(layout.page_bytes)));
  }
  KvCache cache;
  cache.config_ = config;
  cache.layers_ = std::move(layout.layers);
  cache.page_bytes_ = layout.page_bytes;
  SHOAL_TRY(cache.storage_, HugeBuffer::allocate(*bytes, "KV cache"));
  return cache;
}

uint8_t* KvCache::page(uint32_t id) const {
  SHOAL_ASSERT(id < config_.page_count);
  return reinterpret_cast<uint8_t*>(storage_.data()) + id * page_bytes_;
}

// One token's key and value of one head; `keys_at` and `values_at` are the head's.
void KvCache::append_head(const Kernels& kernels, const Layer& layer, size_t row, uint8_t* keys_at,
                          uint8_t* values_at, const float* keys, const float* values) const {
  const size_t size = layer.head_dim, stride = padded(size);
  const auto put_key = [&](auto* lanes, const auto* from) {
    lanes += row / 16 * 16 * size + row % 16;
    for (size_t d = 0; d < size; ++d) lanes[16 * d] = from[d];
  };
  switch (config_.type) {
    case KvType::f32:
      put_key(reinterpret_cast<float*>(keys_at), keys);
      std::memcpy(values_at + row * stride * 4, values, size * 4);
      return;
    case KvType::f16: {
      uint16_t halves[kMaxHeadDim];
      kernels.to_f16(keys, size, halves);
      put_key(reinterpret_cast<uint16_t*>(keys_at), halves);
      kernels.to_f16(values, size, reinterpret_cast<uint16_t*>(values_at) + row * stride);
      return;
    }
    case KvType::q8: {
      int8_t quantised[kMaxHeadDim];
      uint16_t scales[kMaxHeadDim / kCacheBlock];
      const size_t blocks = cache_blocks(size);
      const auto put_scales = [&](uint8_t* to) {
        auto* lanes = reinterpret_cast<uint16_t*>(to) + row / 16 * 16 * blocks + row % 16;
        for (size_t block = 0; block < blocks; ++block) lanes[16 * block] = scales[block];
      };
      kernels.to_q8(keys, size, quantised, scales);
      put_key(reinterpret_cast<int8_t*>(keys_at), quantised);
      put_scales(keys_at + layer.key_scales);
      kernels.to_q8(values, size, reinterpret_cast<int8_t*>(values_at) + row * stride, scales);
      put_scales(values_at + layer.value_scales);
      return;
    }
  }
}

void KvCache::append(const Kernels& kernels, uint32_t layer_index, std::span<const uint32_t> pages,
                     uint32_t token, const float* keys, const float* values) {
  const Layer& layer = layers_[layer_index];
  SHOAL_ASSERT(token / config_.page_tokens < pages.size());
  uint8_t* base = page(pages[token / config_.page_tokens]);
  size_t row = token % config_.page_tokens, size = layer.head_dim;
  for (uint32_t head = 0; head < layer.kv_heads; ++head, keys += size, values += size) {
    append_head(kernels, layer, row, base + layer.key_offset + head * layer.key_head_bytes,
                base + layer.value_offset + head * layer.value_head_bytes, keys, values);
  }
}

void KvCache::append_latent(const Kernels& kernels, uint32_t layer_index, std::span<const uint32_t> pages,
                            uint32_t token, const float* latent, const float* rotated) {
  const Layer& layer = layers_[layer_index];
  SHOAL_ASSERT(layer.latent_rank != 0 && token / config_.page_tokens < pages.size());
  uint8_t* row = page(pages[token / config_.page_tokens]) + layer.key_offset +
                 token % config_.page_tokens * layer.row_bytes;
  const size_t size = size_t{layer.latent_rank} + layer.latent_rope;
  float values[kMaxLatentValues];
  std::memcpy(values, latent, layer.latent_rank * sizeof(float));
  if (layer.latent_rope != 0) {
    std::memcpy(values + layer.latent_rank, rotated, layer.latent_rope * sizeof(float));
  }
  switch (config_.type) {
    case KvType::f32:
      std::memcpy(row, values, size * sizeof(float));
      return;
    case KvType::f16:
      return kernels.to_f16(values, size, reinterpret_cast<uint16_t*>(row));
    case KvType::q8:
      return kernels.to_q8(values, size, reinterpret_cast<int8_t*>(row + 2 * cache_blocks(size)),
                           reinterpret_cast<uint16_t*>(row));
  }
}

void KvCache::locate(AttentionTask& task, uint32_t layer_index, uint32_t kv_head,
                     std::span<const uint32_t> pages) const {
  const Layer& layer = layers_[layer_index];
  task.cache = reinterpret_cast<const uint8_t*>(storage_.data());
  task.page_bytes = page_bytes_;
  task.pages = pages.data();
  task.page_tokens = config_.page_tokens;
  task.key_offset = layer.key_offset + kv_head * layer.key_head_bytes;
  task.value_offset = layer.value_offset + kv_head * layer.value_head_bytes;
  task.key_scale_offset = task.key_offset + layer.key_scales;
  task.value_scale_offset = task.value_offset + layer.value_scales;
  task.head_dim = layer.head_dim;
}

void KvCache::locate(LatentTask& task, uint32_t layer_index, std::span<const uint32_t> pages) const {
  const Layer& layer = layers_[layer_index];
  task.cache = reinterpret_cast<const uint8_t*>(storage_.data());
  task.page_bytes = page_bytes_;
  task.pages = pages.data();
  task.page_tokens = config_.page_tokens;
  task.rows_offset = layer.key_offset;
  task.row_bytes = static_cast<uint32_t>(layer.row_bytes);
  task.latent_rank = layer.latent_rank;
  task.rope_dim = layer.latent_rope;
}

void KvCache::copy_page(uint32_t from, uint32_t to) {
  if (from != to && page_bytes_ != 0) std::memcpy(page(to), page(from), page_bytes_);
}

}  // namespace shoal::engine::cpu
