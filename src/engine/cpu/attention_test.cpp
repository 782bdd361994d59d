#include <gtest/gtest.h>

#include "engine/cpu/attention_plan.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

struct Heads {
  uint32_t query_heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 32;
  uint32_t window = 0;
  uint32_t page_tokens = 16;
  KvType type = KvType::f32;
  float softcap = 0;
  bool sinks = false;
  uint32_t group_heads = 0;
  uint32_t skipped_heads = 0;
};

// From far below the scores to above most of them.
std::vector<float> sinks_of(const Heads& heads) {
  std::vector<float> sinks(heads.query_heads);
  for (uint32_t head = 0; head < heads.query_heads; ++head)
    sinks[head] = -30.0f + 40.0f * static_cast<float>(head + 1) / static_cast<float>(heads.query_heads);
  return sinks;
}

// The tokens of one sequence, all at once: q, k and v as [tokens, heads * head_dim].
struct Tokens {
  uint32_t count;
  std::vector<float> queries, keys, values;
};

Tokens random_tokens(const Heads& heads, uint32_t count, Random& random) {
  size_t query_floats = size_t{count} * heads.query_heads * heads.head_dim;
  size_t key_floats = size_t{count} * heads.kv_heads * heads.head_dim;
  Tokens tokens = {count, normal_values(query_floats, random), normal_values(key_floats, random),
                   normal_values(key_floats, random)};
  for (float& value : tokens.queries) value *= 3;  // peaked weights
  return tokens;
}

// Attention of all tokens, fed in chunks of the given sizes. Pages are scattered and hold NaN beforehand.
std::vector<float> attend_in_chunks(const Kernels& kernels, const Heads& heads, const Tokens& tokens,
                                    std::span<const uint32_t> chunks, unsigned threads) {
  uint32_t page_count = (tokens.count + heads.page_tokens - 1) / heads.page_tokens;
  KvLayerShape layers[2] = {{1, 16}, {heads.kv_heads, heads.head_dim}};
  KvConfig config = {.type = heads.type, .page_tokens = heads.page_tokens, .page_count = 2 * page_count};
  KvCache cache = *KvCache::create(config, layers);
  std::vector<uint32_t> pages;
  for (uint32_t i = 0; i < page_count; ++i) pages.push_back(2 * (page_count - 1 - i));
  size_t key_floats = size_t{heads.kv_heads} * heads.head_dim;
  std::vector<float> nothing(key_floats, NAN);
  for (uint32_t t = 0; t < page_count * heads.page_tokens; ++t) {
    cache.append(kernels, 1, pages, t, nothing.data(), nothing.data());
  }

  ThreadPool pool(threads);
  AttentionPlan plan(kernels, pool, heads.head_dim);
  AttentionOp op = {.layer = 1,
                    .query_heads = heads.query_heads,
                    .kv_heads = heads.kv_heads,
                    .head_dim = heads.head_dim,
                    .scale = 0.25f,
                    .window = heads.window,
                    .softcap = heads.softcap,
                    .group_heads = heads.group_heads,
                    .skipped_heads = heads.skipped_heads};
  std::vector<float> sinks = sinks_of(heads);
  size_t query_floats = size_t{heads.query_heads} * heads.head_dim;
  std::vector<float> output(tokens.queries.size());
  uint32_t done = 0;
  for (size_t i = 0; done < tokens.count; ++i) {
    uint32_t count = std::min(chunks[i % chunks.size()], tokens.count - done);
    for (uint32_t t = done; t < done + count; ++t) {
      cache.append(kernels, 1, pages, t, &tokens.keys[t * key_floats], &tokens.values[t * key_floats]);
    }
    SequenceRows rows = {.first_row = 0, .row_count = count, .context_tokens = done, .pages = pages};
    StepView step = {.token_ids = {}, .positions = {}, .sequences = {&rows, 1}, .output_rows = {}};
    plan.run(cache, step, op, &tokens.queries[done * query_floats], heads.sinks ? sinks.data() : nullptr,
             &output[done * query_floats]);
    done += count;
  }
  return output;
}

std::vector<float> attend_at_once(const Kernels& kernels, const Heads& heads, const Tokens& tokens) {
  uint32_t all[] = {tokens.count};
  return attend_in_chunks(kernels, heads, tokens, all, 1);
}

std::vector<double> exact_attention(const Heads& heads, const Tokens& given) {
  Tokens tokens = given;
  tokens.keys = as_cached(heads.type, tokens.keys, heads.head_dim);
  tokens.values = as_cached(heads.type, tokens.values, heads.head_dim);
  std::vector<double> output(tokens.queries.size());
  uint32_t group = heads.group_heads != 0 ? heads.group_heads : heads.query_heads / heads.kv_heads;
  uint32_t size = heads.head_dim;
  for (uint32_t i = 0; i < tokens.count; ++i) {
    for (uint32_t head = 0; head < heads.query_heads; ++head) {
      uint32_t first = heads.window != 0 && i + 1 > heads.window ? i + 1 - heads.window : 0;
      const float* query = &tokens.queries[(size_t{i} * heads.query_heads + head) * size];
      double* to = &output[(size_t{i} * heads.query_heads + head) * size];
      double sum = heads.sinks ? std::exp(sinks_of(heads)[head]) : 0;
      for (uint32_t j = first; j <= i; ++j) {
        size_t at = (size_t{j} * heads.kv_heads + (heads.skipped_heads + head) / group) * size;
        double score = 0;
        for (uint32_t d = 0; d < size; ++d) score += double{query[d]} * tokens.keys[at + d];
        score *= 0.25;
        if (heads.softcap != 0) score = heads.softcap * std::tanh(score / heads.softcap);
        double weight = std::exp(score);
        sum += weight;
        for (uint32_t d = 0; d < size; ++d) to[d] += weight * tokens.values[at + d];
      }
      for (uint32_t d = 0; d < size; ++d) to[d] /= sum;
    }
  }
  return output;
}

std::vector<Heads> all_heads() {
  return {{},
          {.query_heads = 3, .kv_heads = 3, .head_dim = 16},
          {.query_heads = 8, .kv_heads = 1, .head_dim = 64, .page_tokens = 32},
          {.query_heads = 12, .kv_heads = 1, .head_dim = 20},
          {.query_heads = 10, .kv_heads = 2, .head_dim = 80, .page_tokens = 64},
          {.window = 1},
          {.window = 17},
          {.window = 70, .page_tokens = 32},
          {.softcap = 5},
          {.sinks = true},
          {.query_heads = 16, .kv_heads = 1, .head_dim = 24, .window = 20, .softcap = 3, .sinks = true},
          {.query_heads = 5, .kv_heads = 3, .sinks = true, .group_heads = 2, .skipped_heads = 1},
          {.query_heads = 3, .kv_heads = 1, .head_dim = 20, .group_heads = 7, .skipped_heads = 2},
          {.query_heads = 11, .kv_heads = 2, .type = KvType::q8, .group_heads = 10, .skipped_heads = 9},
          {.type = KvType::f16},
          {.query_heads = 7, .kv_heads = 1, .head_dim = 40, .window = 33, .type = KvType::f16},
          {.type = KvType::q8},
          {.query_heads = 8, .kv_heads = 1, .head_dim = 128, .page_tokens = 64, .type = KvType::q8},
          {.query_heads = 3, .kv_heads = 1, .head_dim = 112, .window = 50, .type = KvType::q8, .sinks = true},
          {.query_heads = 9, .kv_heads = 3, .head_dim = 20, .page_tokens = 32, .type = KvType::q8}};
}

std::string describe(const Heads& heads) {
  return "heads " + std::to_string(heads.query_heads) + "/" + std::to_string(heads.kv_heads) + " of " +
         std::to_string(heads.head_dim) + " window " + std::to_string(heads.window) + " cap " +
         std::to_string(heads.softcap) + (heads.sinks ? " with sinks" : "");
}

TEST(Attention, AgreesWithDoubleArithmetic) {
  Random random(21);
  for (const Heads& heads : all_heads()) {
    Tokens tokens = random_tokens(heads, 150, random);
    std::vector<double> exact = exact_attention(heads, tokens);
    std::vector<float> seen = attend_at_once(reference_kernels(), heads, tokens);
    for (size_t i = 0; i < exact.size(); ++i)
      ASSERT_NEAR(seen[i], exact[i], 2e-5) << describe(heads) << " " << i;
  }
}

TEST(Attention, EveryInstructionSetGivesPortableBits) {
  Random random(22);
  for (const Kernels* kernels : fast_kernels()) {
    for (const Heads& heads : all_heads()) {
      Tokens tokens = random_tokens(heads, 137, random);
      EXPECT_TRUE(same_bits(attend_at_once(reference_kernels(), heads, tokens),
                            attend_at_once(*kernels, heads, tokens)))
          << to_string(kernels->isa) << " " << describe(heads);
    }
  }
}

TEST(Attention, DoesNotDependOnChunksOrThreads) {
  Random random(23);
  const Kernels& kernels = **select_kernels(std::nullopt);
  for (const Heads& heads : all_heads()) {
    Tokens tokens = random_tokens(heads, 200, random);
    std::vector<float> at_once = attend_at_once(kernels, heads, tokens);
    for (std::vector<uint32_t> chunks : {std::vector<uint32_t>{1}, {7}, {64}, {100, 1, 3}}) {
      for (unsigned threads : {1u, 3u}) {
        EXPECT_TRUE(same_bits(at_once, attend_in_chunks(kernels, heads, tokens, chunks, threads)))
            << describe(heads) << " chunks of " << chunks[0] << " threads " << threads;
      }
    }
  }
}

// Contexts of three spans of kAttentionSpan.
constexpr uint32_t kLong = 2 * kAttentionSpan + 90;
std::vector<Heads> long_heads() {
  return {{.query_heads = 4, .kv_heads = 1, .head_dim = 16},
          {.query_heads = 2, .kv_heads = 2, .head_dim = 20, .window = kAttentionSpan + 70, .sinks = true},
          {.query_heads = 3, .kv_heads = 1, .head_dim = 32, .window = 40, .type = KvType::f16, .softcap = 4},
          {.query_heads = 12, .kv_heads = 1, .head_dim = 40, .type = KvType::q8, .sinks = true}};
}

TEST(Attention, OverSeveralSpansAgreesWithDoubleArithmetic) {
  Random random(27);
  for (const Heads& heads : long_heads()) {
    Tokens tokens = random_tokens(heads, kLong, random);
    std::vector<double> exact = exact_attention(heads, tokens);
    std::vector<float> seen = attend_at_once(**select_kernels(std::nullopt), heads, tokens);
    for (size_t i = 0; i < exact.size(); ++i)
      ASSERT_NEAR(seen[i], exact[i], 4e-5) << describe(heads) << " " << i;
  }
}

TEST(Attention, OverSeveralSpansDependsOnNothingElse) {
  Random random(28);
  for (Heads heads : long_heads()) {
    Tokens tokens = random_tokens(heads, kLong, random);
    std::vector<float> portable = attend_at_once(reference_kernels(), heads, tokens);
    for (const Kernels* kernels : fast_kernels())
      EXPECT_TRUE(same_bits(portable, attend_at_once(*kernels, heads, tokens))) << describe(heads);
    const Kernels& kernels = **select_kernels(std::nullopt);
    heads.page_tokens = 48;
    for (std::vector<uint32_t> chunks : {std::vector<uint32_t>{1}, {kAttentionSpan}, {700, 1, 9}}) {
      for (unsigned threads : {1u, 4u}) {
        EXPECT_TRUE(same_bits(portable, attend_in_chunks(kernels, heads, tokens, chunks, threads)))
            << describe(heads) << " chunks of " << chunks[0] << " threads " << threads;
      }
    }
  }
}

TEST(Attention, DoesNotDependOnThePageSize) {
  Random random(24);
  const Kernels& kernels = **select_kernels(std::nullopt);
  for (KvType type : {KvType::f32, KvType::f16, KvType::q8}) {
    Heads heads = {.type = type};
    Tokens tokens = random_tokens(heads, 200, random);
    std::vector<float> small = attend_at_once(kernels, heads, tokens);
    for (uint32_t page_tokens : {32u, 48u, 64u, 128u}) {
      heads.page_tokens = page_tokens;
      EXPECT_TRUE(same_bits(small, attend_at_once(kernels, heads, tokens))) << page_tokens;
    }
  }
}

TEST(Attention, SurvivesScoresThatWouldOverflowTheExponential) {
  Random random(25);
  Heads heads;
  Tokens tokens = random_tokens(heads, 100, random);
  for (float& value : tokens.queries) value *= 1000;
  for (float value : attend_at_once(reference_kernels(), heads, tokens)) ASSERT_TRUE(std::isfinite(value));
}

TEST(Attention, LeavesMostOfTheWeightToASinkAboveAllScores) {
  Random random(26);
  Heads heads = {.query_heads = 4, .kv_heads = 4, .sinks = true};
  Tokens tokens = random_tokens(heads, 70, random);
  for (float& value : tokens.queries) value = 0;  // all scores 0, sinks up to 10
  std::vector<float> seen = attend_at_once(reference_kernels(), heads, tokens);
  for (uint32_t i = 0; i < 70; ++i) {
    const float* last_head = &seen[(size_t{i} * 4 + 3) * 32];
    for (uint32_t d = 0; d < 32; ++d) EXPECT_LT(std::abs(last_head[d]), 70 * 3.0 * std::exp(-10));
  }
}

TEST(KvCache, RefusesWhatItCannotHold) {
  KvLayerShape layer = {2, 64};
  auto refused = [&](KvConfig config) {
    auto cache = KvCache::create(config, {&layer, 1});
    return cache.has_value() ? std::optional<ErrorCode>() : cache.error().code;
  };
  EXPECT_EQ(refused({.type = KvType::f16, .page_tokens = 24, .page_count = 1}), ErrorCode::unsupported);
  EXPECT_EQ(refused({.type = KvType::f16, .page_tokens = 0, .page_count = 1}), ErrorCode::unsupported);
  EXPECT_EQ(refused({.type = KvType::f16, .page_tokens = 32, .page_count = 1}), std::nullopt);
  EXPECT_EQ(refused({.type = KvType::q8, .page_tokens = 32, .page_count = 1}), std::nullopt);
  layer = {.kv_heads = 2, .head_dim = 5000};
  EXPECT_EQ(refused({.page_count = 1}), ErrorCode::unsupported);
  layer = {.latent_rank = 4000, .latent_rope = 100};
  EXPECT_EQ(refused({.page_count = 1}), ErrorCode::unsupported);
  layer = {.kv_heads = 1, .head_dim = 64, .latent_rank = 64};
  EXPECT_EQ(refused({.page_count = 1}), ErrorCode::unsupported);
}

TEST(KvCache, PageTakesTheBytesOfItsTokens) {
  std::vector<KvLayerShape> layers = {{2, 64}, {4, 32}};
  EXPECT_EQ(*KvCache::page_bytes({.type = KvType::f16, .page_tokens = 32}, layers), 2u * 2 * 128 * 32 * 2);
  EXPECT_EQ(*KvCache::page_bytes({.type = KvType::f32, .page_tokens = 16}, layers), 2u * 2 * 128 * 16 * 4);
  EXPECT_EQ(*KvCache::page_bytes({.type = KvType::q8, .page_tokens = 32}, layers),
            2u * 2 * 128 * 32 * 34 / 32);
  std::vector<KvLayerShape> odd = {{1, 40}};  // values are padded to 48, and there are two scales
  EXPECT_EQ(*KvCache::page_bytes({.type = KvType::q8, .page_tokens = 16}, odd), 16u * (40 + 48 + 2 * 4));
  std::vector<KvLayerShape> latent = {{.latent_rank = 512, .latent_rope = 64}};
  EXPECT_EQ(*KvCache::page_bytes({.type = KvType::f16, .page_tokens = 32}, latent), 576u * 32 * 2);
  EXPECT_EQ(*KvCache::page_bytes({.type = KvType::q8, .page_tokens = 32}, latent), 576u * 32 * 34 / 32);
}

TEST(KvCache, LayersThatKeepNothingPerTokenTakeNothing) {
  std::vector<KvLayerShape> layers = {{2, 64}, {.state_floats = 1000}, {}, {4, 32}},
                            kept = {{2, 64}, {4, 32}};
  for (KvType type : {KvType::f32, KvType::f16, KvType::q8}) {
    KvConfig config = {.type = type, .page_count = 3};
    EXPECT_EQ(*KvCache::page_bytes(config, layers), *KvCache::page_bytes(config, kept));
  }
  std::vector<KvLayerShape> states = {{.state_floats = 1000}};
  auto cache = KvCache::create({.page_count = 3}, states);
  ASSERT_TRUE(cache.has_value());
  EXPECT_EQ(cache->bytes(), 0u);
  cache->copy_page(0, 2);
}

TEST(KvCache, QuantisesHugeAndTinyValues) {
  const Kernels& kernels = reference_kernels();
  for (float size : {0.0f, 1e-35f, 1e-6f, 1e4f}) {
    std::vector<float> values(32, size);
    int8_t quantised[32];
    uint16_t scale;
    kernels.to_q8(values.data(), 32, quantised, &scale);
    EXPECT_NEAR(formats::f16_to_f32(scale) * static_cast<float>(quantised[7]), size, 0.001f * size + 4e-6f);
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
