#include "engine/cpu/kv_cache.h"

#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "engine/cpu/cpu_backend.h"

namespace shoal::engine::cpu {
namespace {

size_t value_bytes_of(KvType type) {
  return type == KvType::f32 ? 4 : 2;
}

}  // namespace

Result<KvCache::Layout> KvCache::lay_out(const KvConfig& config, std::span<const KvLayerShape> shapes) {
  if (config.type == KvType::q8) {
    return fail(ErrorCode::unsupported, "the CPU engine has no q8 KV cache yet", "use f16 or f32");
  }
  if (config.page_tokens == 0 || config.page_tokens % 16 != 0 || config.page_tokens > 4096) {
    return fail(ErrorCode::unsupported,
                fmt::format("KV pages of {} tokens: the CPU engine needs a multiple of 16 up to 4096",
                            config.page_tokens));
  }
  Layout layout;
  uint64_t value_bytes = value_bytes_of(config.type);
  for (const KvLayerShape& shape : shapes) {
    if (shape.head_dim == 0 || shape.kv_heads == 0 || shape.head_dim > 4096 ||
        shape.kv_heads > limits::kMaxHeads) {
      return fail(ErrorCode::unsupported,
                  fmt::format("a layer with {} kv heads of {} values", shape.kv_heads, shape.head_dim));
    }
    uint64_t padded = (shape.head_dim + 15) / 16 * 16;
    Layer layer = {};
    layer.kv_heads = shape.kv_heads;
    layer.head_dim = shape.head_dim;
    layer.key_head_bytes = uint64_t{config.page_tokens} * shape.head_dim * value_bytes;
    layer.value_head_bytes = config.page_tokens * padded * value_bytes;
    layer.key_offset = layout.page_bytes;
    layer.value_offset = layer.key_offset + shape.kv_heads * layer.key_head_bytes;
    layout.page_bytes = layer.value_offset + shape.kv_heads * layer.value_head_bytes;
    layout.page_bytes = (layout.page_bytes + 63) / 64 * 64;
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

void KvCache::append(const Kernels& kernels, uint32_t layer_index, std::span<const uint32_t> pages,
                     uint32_t token, const float* keys, const float* values) {
  const Layer& layer = layers_[layer_index];
  SHOAL_ASSERT(token / config_.page_tokens < pages.size());
  uint8_t* base = page(pages[token / config_.page_tokens]);
  size_t row = token % config_.page_tokens, size = layer.head_dim, padded = (size + 15) / 16 * 16;
  for (uint32_t head = 0; head < layer.kv_heads; ++head, keys += size, values += size) {
    uint8_t* key_group = base + layer.key_offset + head * layer.key_head_bytes;
    uint8_t* value_rows = base + layer.value_offset + head * layer.value_head_bytes;
    if (config_.type == KvType::f32) {
      auto* key_lane = reinterpret_cast<float*>(key_group) + row / 16 * 16 * size + row % 16;
      for (size_t d = 0; d < size; ++d) key_lane[16 * d] = keys[d];
      std::memcpy(value_rows + row * padded * 4, values, size * 4);
    } else {
      uint16_t halves[4096];
      kernels.to_f16(keys, size, halves);
      auto* key_lane = reinterpret_cast<uint16_t*>(key_group) + row / 16 * 16 * size + row % 16;
      for (size_t d = 0; d < size; ++d) key_lane[16 * d] = halves[d];
      kernels.to_f16(values, size, reinterpret_cast<uint16_t*>(value_rows) + row * padded);
    }
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
  task.head_dim = layer.head_dim;
}

void KvCache::copy_page(uint32_t from, uint32_t to) {
  if (from != to) std::memcpy(page(to), page(from), page_bytes_);
}

}  // namespace shoal::engine::cpu
