#include <gtest/gtest.h>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/latent_plan.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

struct Shape {
  uint32_t heads = 4;
  uint32_t rank = 32;
  uint32_t rope = 16;
  uint32_t page_tokens = 16;
  KvType type = KvType::f32;
};

// The tokens of one sequence: queries [tokens, heads * rank] and [tokens, heads * rope], rows [tokens, rank]
// and [tokens, rope].
struct Tokens {
  uint32_t count;
  std::vector<float> queries, rotated_queries, latent, rotated;
};

constexpr float kScale = 0.2f;

Tokens random_tokens(const Shape& shape, uint32_t count, Random& random) {
  Tokens tokens = {count, normal_values(size_t{count} * shape.heads * shape.rank, random),
                   normal_values(size_t{count} * shape.heads * shape.rope, random),
                   normal_values(size_t{count} * shape.rank, random),
                   normal_values(size_t{count} * shape.rope, random)};
  for (float& value : tokens.queries) value *= 3;  // peaked weights
  return tokens;
}

// Attention of all tokens, fed in chunks of the given sizes. Pages are scattered and hold NaN beforehand.
std::vector<float> attend_in_chunks(const Kernels& kernels, const Shape& shape, const Tokens& tokens,
                                    std::span<const uint32_t> chunks, unsigned threads) {
  const uint32_t page_count = (tokens.count + shape.page_tokens - 1) / shape.page_tokens;
  KvLayerShape layers[2] = {{1, 16}, {.latent_rank = shape.rank, .latent_rope = shape.rope}};
  KvConfig config = {.type = shape.type, .page_tokens = shape.page_tokens, .page_count = 2 * page_count};
  KvCache cache = *KvCache::create(config, layers);
  std::vector<uint32_t> pages;
  for (uint32_t i = 0; i < page_count; ++i) pages.push_back(2 * (page_count - 1 - i));
  const std::vector<float> nothing(shape.rank + shape.rope, NAN);
  for (uint32_t t = 0; t < page_count * shape.page_tokens; ++t)
    cache.append_latent(kernels, 1, pages, t, nothing.data(), nothing.data());

  ThreadPool pool(threads);
  LatentPlan plan(kernels, pool);
  LatentAttentionOp op = {.layer = 1,
                          .query_heads = shape.heads,
                          .latent_rank = shape.rank,
                          .rope_dim = shape.rope,
                          .scale = kScale};
  std::vector<float> output(tokens.queries.size());
  uint32_t done = 0;
  for (size_t i = 0; done < tokens.count; ++i) {
    const uint32_t count = std::min(chunks[i % chunks.size()], tokens.count - done);
    for (uint32_t t = done; t < done + count; ++t) {
      cache.append_latent(kernels, 1, pages, t, tokens.latent.data() + t * shape.rank,
                          tokens.rotated.data() + t * shape.rope);
    }
    SequenceRows rows = {.first_row = 0, .row_count = count, .context_tokens = done, .pages = pages};
    StepView step = {.token_ids = {}, .positions = {}, .sequences = {&rows, 1}, .output_rows = {}};
    const size_t first = size_t{done} * shape.heads;
    plan.run(cache, step, op, tokens.queries.data() + first * shape.rank,
             tokens.rotated_queries.data() + first * shape.rope, output.data() + first * shape.rank);
    done += count;
  }
  return output;
}

std::vector<float> attend_at_once(const Kernels& kernels, const Shape& shape, const Tokens& tokens) {
  const uint32_t all[] = {tokens.count};
  return attend_in_chunks(kernels, shape, tokens, all, 1);
}

// Rows [tokens, rank + rope] as the cache gives them back.
std::vector<float> cached_rows(const Shape& shape, const Tokens& tokens) {
  std::vector<float> rows;
  for (size_t t = 0; t < tokens.count; ++t) {
    const float *latent = tokens.latent.data() + t * shape.rank,
                *rotated = tokens.rotated.data() + t * shape.rope;
    rows.insert(rows.end(), latent, latent + shape.rank);
    rows.insert(rows.end(), rotated, rotated + shape.rope);
  }
  return as_cached(shape.type, rows, shape.rank + shape.rope);
}

std::vector<double> exact_attention(const Shape& shape, const Tokens& tokens) {
  const std::vector<float> rows = cached_rows(shape, tokens);
  std::vector<double> output(tokens.queries.size());
  for (size_t query = 0; query < size_t{tokens.count} * shape.heads; ++query) {
    double sum = 0;
    double* to = &output[query * shape.rank];
    for (size_t t = 0; t <= query / shape.heads; ++t) {
      const float* row = &rows[t * (shape.rank + shape.rope)];
      double score = 0;
      for (uint32_t d = 0; d < shape.rank; ++d)
        score += double{tokens.queries[query * shape.rank + d]} * row[d];
      for (uint32_t d = 0; d < shape.rope; ++d)
        score += double{tokens.rotated_queries[query * shape.rope + d]} * row[shape.rank + d];
      const double weight = std::exp(double{kScale} * score);
      sum += weight;
      for (uint32_t d = 0; d < shape.rank; ++d) to[d] += weight * row[d];
    }
    for (uint32_t d = 0; d < shape.rank; ++d) to[d] /= sum;
  }
  return output;
}

std::vector<Shape> all_shapes() {
  return {{},
          {.heads = 1},
          {.heads = 16, .rank = 64, .rope = 32, .page_tokens = 64},
          {.heads = 20, .rank = 40, .rope = 12},
          {.heads = 3, .rank = 16, .rope = 0},
          {.heads = 5, .rank = 130, .rope = 6, .page_tokens = 32},
          {.heads = 16, .type = KvType::f16},
          {.heads = 7, .rank = 40, .rope = 12, .type = KvType::f16},
          {.heads = 16, .type = KvType::q8},
          {.heads = 6, .rank = 40, .rope = 12, .type = KvType::q8},
          {.heads = 2, .rank = 144, .rope = 64, .page_tokens = 32, .type = KvType::q8}};
}

std::string describe(const Shape& shape) {
  return "heads " + std::to_string(shape.heads) + " of " + std::to_string(shape.rank) + " + " +
         std::to_string(shape.rope) + " type " + std::to_string(static_cast<int>(shape.type));
}

TEST(LatentAttention, AgreesWithDoubleArithmetic) {
  Random random(41);
  for (const Shape& shape : all_shapes()) {
    Tokens tokens = random_tokens(shape, 150, random);
    std::vector<double> exact = exact_attention(shape, tokens);
    std::vector<float> seen = attend_at_once(reference_kernels(), shape, tokens);
    for (size_t i = 0; i < exact.size(); ++i)
      ASSERT_NEAR(seen[i], exact[i], 5e-5) << describe(shape) << " " << i;
  }
}

TEST(LatentAttention, EveryInstructionSetGivesPortableBits) {
  Random random(42);
  for (const Kernels* kernels : fast_kernels()) {
    for (const Shape& shape : all_shapes()) {
      Tokens tokens = random_tokens(shape, 137, random);
      EXPECT_TRUE(same_bits(attend_at_once(reference_kernels(), shape, tokens),
                            attend_at_once(*kernels, shape, tokens)))
          << to_string(kernels->isa) << " " << describe(shape);
    }
  }
}

TEST(LatentAttention, DoesNotDependOnChunksOrThreads) {
  Random random(43);
  const Kernels& kernels = **select_kernels(std::nullopt);
  for (const Shape& shape : all_shapes()) {
    Tokens tokens = random_tokens(shape, 200, random);
    std::vector<float> at_once = attend_at_once(kernels, shape, tokens);
    for (std::vector<uint32_t> chunks : {std::vector<uint32_t>{1}, {7}, {64}, {100, 1, 3}}) {
      for (unsigned threads : {1u, 3u}) {
        EXPECT_TRUE(same_bits(at_once, attend_in_chunks(kernels, shape, tokens, chunks, threads)))
            << describe(shape) << " chunks of " << chunks[0] << " threads " << threads;
      }
    }
  }
}

TEST(LatentAttention, OverSeveralSpansIsExactAndDependsOnNothingElse) {
  Random random(48);
  for (KvType type : {KvType::f32, KvType::q8}) {
    const Shape shape = {.heads = 3, .rank = 24, .rope = 12, .type = type};
    Tokens tokens = random_tokens(shape, 2 * kAttentionSpan + 90, random);
    const std::vector<double> exact = exact_attention(shape, tokens);
    const std::vector<float> portable = attend_at_once(reference_kernels(), shape, tokens);
    for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(portable[i], exact[i], 1e-4) << i;
    for (const Kernels* kernels : fast_kernels())
      EXPECT_TRUE(same_bits(portable, attend_at_once(*kernels, shape, tokens))) << to_string(kernels->isa);
    for (std::vector<uint32_t> chunks : {std::vector<uint32_t>{1}, {kAttentionSpan}, {700, 1, 9}}) {
      for (unsigned threads : {1u, 4u}) {
        EXPECT_TRUE(same_bits(
            portable, attend_in_chunks(**select_kernels(std::nullopt), shape, tokens, chunks, threads)))
            << describe(shape) << " chunks of " << chunks[0] << " threads " << threads;
      }
    }
  }
}

// With a long context, a decode step's spans are divided over the threads.
TEST(LatentAttention, DecodeOverALongContextGivesTheSameBitsOnAnyNumberOfThreads) {
  Random random(44);
  const Kernels& kernels = **select_kernels(std::nullopt);
  for (KvType type : {KvType::f32, KvType::f16, KvType::q8}) {
    Shape shape = {.heads = 20, .rank = 200, .rope = 24, .page_tokens = 32, .type = type};
    Tokens tokens = random_tokens(shape, 900, random);
    const std::vector<uint32_t> chunks = {897, 1, 2};
    std::vector<float> expected = attend_in_chunks(kernels, shape, tokens, chunks, 1);
    for (unsigned threads : {2u, 5u}) {
      EXPECT_TRUE(same_bits(expected, attend_in_chunks(kernels, shape, tokens, chunks, threads)))
          << describe(shape) << " threads " << threads;
    }
  }
}

TEST(LatentAttention, DoesNotDependOnThePageSize) {
  Random random(45);
  const Kernels& kernels = **select_kernels(std::nullopt);
  for (KvType type : {KvType::f32, KvType::f16, KvType::q8}) {
    Shape shape = {.type = type};
    Tokens tokens = random_tokens(shape, 200, random);
    std::vector<float> small = attend_at_once(kernels, shape, tokens);
    for (uint32_t page_tokens : {32u, 48u, 64u, 128u}) {
      shape.page_tokens = page_tokens;
      EXPECT_TRUE(same_bits(small, attend_at_once(kernels, shape, tokens))) << page_tokens;
    }
  }
}

TEST(LatentAttention, LaterTokensDoNotReachEarlierRows) {
  Random random(46);
  for (const Kernels* kernels : {&reference_kernels(), *select_kernels(std::nullopt)}) {
    Shape shape = {.heads = 3};  // rows share tiles
    Tokens tokens = random_tokens(shape, 100, random), broken = tokens;
    for (size_t i = 70 * shape.rank; i < 100 * shape.rank; ++i) broken.latent[i] = NAN;
    const size_t before = size_t{70} * shape.heads * shape.rank;
    std::vector<float> expected = attend_at_once(*kernels, shape, tokens);
    std::vector<float> seen = attend_at_once(*kernels, shape, broken);
    EXPECT_TRUE(same_bits(std::span(expected).first(before), std::span(seen).first(before)));
  }
}

TEST(LatentAttention, SurvivesScoresThatWouldOverflowTheExponential) {
  Random random(47);
  Shape shape;
  Tokens tokens = random_tokens(shape, 100, random);
  for (float& value : tokens.queries) value *= 1000;
  for (float value : attend_at_once(reference_kernels(), shape, tokens)) ASSERT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace shoal::engine::cpu
