// Bits that every build on every machine must give: a checksum over products, norms, activations, rope and
// attention. When a change of the numerics contract is meant, the constant changes with it, and nodes of both
// versions no longer agree in their tokens.
#include <gtest/gtest.h>

#include "engine/cpu/attention_plan.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/latent_plan.h"
#include "engine/cpu/rope_table.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

constexpr uint64_t kChecksum = 16672326639337882361u;
constexpr uint64_t kAttentionChecksum = 18109000051331321770u;
constexpr uint64_t kLaterTypesChecksum = 124895120753635066u;

class Checksum {
 public:
  void add(std::span<const float> values) {
    for (float value : values) {
      ASSERT_FALSE(std::isnan(value));
      sum_ = (sum_ ^ std::bit_cast<uint32_t>(value)) * 0x100000001b3u;
    }
  }
  uint64_t sum() const { return sum_; }

 private:
  uint64_t sum_ = 0xcbf29ce484222325u;
};

void add_attention(const Kernels& kernels, KvType type, Random& random, Checksum& checksum, float softcap = 0,
                   const float* sinks = nullptr) {
  constexpr uint32_t kTokens = 130, kQueryHeads = 6, kKvHeads = 2, kHeadDim = 48;
  KvLayerShape layer = {kKvHeads, kHeadDim};
  KvCache cache = *KvCache::create({.type = type, .page_tokens = 16, .page_count = 9}, {&layer, 1});
  std::vector<uint32_t> pages = {8, 7, 6, 5, 4, 3, 2, 1, 0};
  std::vector<float> queries = normal_values(kTokens * kQueryHeads * kHeadDim, random),
                     output(queries.size());
  for (uint32_t t = 0; t < kTokens; ++t) {
    std::vector<float> key = normal_values(kKvHeads * kHeadDim, random);
    std::vector<float> value = normal_values(kKvHeads * kHeadDim, random);
    cache.append(kernels, 0, pages, t, key.data(), value.data());
  }
  ThreadPool pool(1);
  SequenceRows rows = {0, kTokens, 0, pages};
  AttentionOp op = {.query_heads = kQueryHeads,
                    .kv_heads = kKvHeads,
                    .head_dim = kHeadDim,
                    .scale = 0.3f,
                    .window = 90,
                    .softcap = softcap};
  AttentionPlan(kernels, pool, kHeadDim)
      .run(cache, {{}, {}, {&rows, 1}, {}}, op, queries.data(), sinks, output.data());
  checksum.add(output);
}

uint64_t checksum_of(const Kernels& kernels) {
  Random random(2024);
  Checksum checksum;
  for (formats::TensorType type : kFirstTypes) {
    Bytes bytes = random_weights(type, 40, 512, random);
    checksum.add(product(kernels, pack(type, bytes, 40, 512), awkward_values(size_t{11} * 512, random), 11));
  }
  std::vector<float> a = normal_values(1000, random), b = normal_values(1000, random), output(1000);
  kernels.rms_norm(a.data(), b.data(), 1000, 1e-6f, output.data());
  checksum.add(output);
  kernels.silu_multiply(a.data(), b.data(), 1000, output.data());
  checksum.add(output);
  kernels.gelu_tanh_multiply(a.data(), b.data(), 1000, output.data());
  checksum.add(output);
  std::vector<float> frequencies = {1.0f, 0.7f, 0.31f, 0.0012f}, cosines(8), sines(8);
  RopeOp op = {.dimensions = 8, .inverse_frequencies = frequencies};
  int32_t positions[] = {17, 123'456};
  fill_rope_table(op, positions, cosines.data(), sines.data());
  kernels.rope_halves(a.data(), cosines.data(), sines.data(), 8);
  kernels.rope_interleaved(b.data(), cosines.data(), sines.data(), 8);
  checksum.add(a);
  checksum.add(b);
  add_attention(kernels, KvType::f32, random, checksum);
  add_attention(kernels, KvType::f16, random, checksum);
  return checksum.sum();
}

uint64_t checksum_of_later_types(const Kernels& kernels) {
  Random random(2025);
  Checksum checksum;
  for (const WeightKind& kind : kLaterKinds) {
    PackedMatrix matrix = pack(random_matrix(kind, 40, 768, random).matrix());
    checksum.add(product(kernels, matrix, awkward_values(size_t{11} * 768, random), 11));
  }
  return checksum.sum();
}

TEST(Numerics, BitsOfTheLaterTypesAreThoseOfEveryOtherBuild) {
  for (Isa isa : available_isas()) {
    EXPECT_EQ(checksum_of_later_types(**select_kernels(isa)), kLaterTypesChecksum) << to_string(isa);
  }
}

// Caps, sinks, the q8 cache, latent rows and the gates.
uint64_t attention_checksum_of(const Kernels& kernels) {
  constexpr uint32_t kTokens = 130, kHeads = 6, kRank = 40, kRope = 12;
  Random random(2025);
  Checksum checksum;
  std::vector<float> a = normal_values(1000, random), b = normal_values(1000, random), output(1000);
  kernels.softcap(a.data(), 0.8f, 1000, output.data());
  checksum.add(output);
  kernels.clamped_swiglu(a.data(), b.data(), 1.702f, 1.0f, 1000, output.data());
  checksum.add(output);
  kernels.sigmoid_multiply(a.data(), b.data(), 1000, output.data());
  checksum.add(output);
  add_attention(kernels, KvType::q8, random, checksum, 5.0f, a.data());
  KvLayerShape layer = {.latent_rank = kRank, .latent_rope = kRope};
  std::vector<uint32_t> pages = {8, 7, 6, 5, 4, 3, 2, 1, 0};
  std::vector<float> queries = normal_values(kTokens * kHeads * kRank, random),
                     rotated = normal_values(kTokens * kHeads * kRope, random), mixed(queries.size());
  ThreadPool pool(1);
  SequenceRows rows = {0, kTokens, 0, pages};
  LatentAttentionOp op = {.query_heads = kHeads, .latent_rank = kRank, .rope_dim = kRope, .scale = 0.3f};
  for (KvType type : {KvType::f32, KvType::f16, KvType::q8}) {
    KvCache cache = *KvCache::create({.type = type, .page_tokens = 16, .page_count = 9}, {&layer, 1});
    for (uint32_t t = 0; t < kTokens; ++t)
      cache.append_latent(kernels, 0, pages, t, &queries[t * kRank], &rotated[t * kRope]);
    LatentPlan(kernels, pool)
        .run(cache, {{}, {}, {&rows, 1}, {}}, op, queries.data(), rotated.data(), mixed.data());
    checksum.add(mixed);
  }
  return checksum.sum();
}

TEST(Numerics, BitsAreThoseOfEveryOtherBuild) {
  for (Isa isa : available_isas()) {
    EXPECT_EQ(checksum_of(**select_kernels(isa)), kChecksum) << to_string(isa);
    EXPECT_EQ(attention_checksum_of(**select_kernels(isa)), kAttentionChecksum) << to_string(isa);
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
