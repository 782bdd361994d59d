#include "runtime/kv_pages.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

namespace shoal::runtime {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint32_t kPageTokens = 4;

std::vector<int32_t> tokens_from(int32_t first, size_t count) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<int32_t>(i);
  return tokens;
}

std::vector<uint32_t> allocate(PagePool& pool, size_t count) {
  std::vector<uint32_t> pages;
  for (size_t i = 0; i < count; ++i) pages.push_back(pool.allocate().value());
  return pages;
}

void release(PagePool& pool, const std::vector<uint32_t>& pages) {
  for (uint32_t page : pages) pool.release(page);
}

TEST(PagePool, GivesEveryPageOnceAndThenNone) {
  PagePool pool(3);
  std::vector<uint32_t> pages = allocate(pool, 3);
  EXPECT_EQ(pool.free_pages(), 0u);
  EXPECT_FALSE(pool.allocate().has_value());
  std::ranges::sort(pages);
  EXPECT_THAT(pages, ElementsAre(0, 1, 2));
}

TEST(PagePool, FreesAPageWithItsLastReference) {
  PagePool pool(1);
  const uint32_t page = pool.allocate().value();
  pool.add_reference(page);
  pool.release(page);
  EXPECT_EQ(pool.free_pages(), 0u);
  pool.release(page);
  EXPECT_EQ(pool.free_pages(), 1u);
  EXPECT_EQ(pool.allocate(), page);
}

TEST(PrefixCache, MatchesTheLongestPrefixInWholePages) {
  PagePool pool(8);
  PrefixCache cache(pool, kPageTokens);
  const std::vector<int32_t> tokens = tokens_from(0, 12);
  const std::vector<uint32_t> pages = allocate(pool, 3);
  cache.insert(tokens, pages);
  EXPECT_EQ(cache.match(tokens), pages);
  EXPECT_THAT(cache.match(std::span(tokens).first(11)), ElementsAre(pages[0], pages[1]));
  EXPECT_THAT(cache.match(std::span(tokens).first(3)), IsEmpty());
  std::vector<int32_t> other = tokens;
  other[7] = 99;
  EXPECT_THAT(cache.match(other), ElementsAre(pages[0]));
  other[0] = 99;
  EXPECT_THAT(cache.match(other), IsEmpty());
}

TEST(PrefixCache, MatchGivesTheCallerAReference) {
  PagePool pool(2);
  PrefixCache cache(pool, kPageTokens);
  const std::vector<int32_t> tokens = tokens_from(0, 4);
  const std::vector<uint32_t> pages = allocate(pool, 1);
  cache.insert(tokens, pages);
  release(pool, pages);
  EXPECT_EQ(cache.evictable_pages(), 1u);
  const std::vector<uint32_t> matched = cache.match(tokens);
  EXPECT_EQ(pool.references(matched[0]), 2u);
  EXPECT_EQ(cache.evictable_pages(), 0u);
  EXPECT_EQ(cache.evict(1), 0u);
  release(pool, matched);
  EXPECT_EQ(cache.evict(1), 1u);
  EXPECT_EQ(pool.free_pages(), 2u);
  EXPECT_THAT(cache.match(tokens), IsEmpty());
}

TEST(PrefixCache, SharesACommonPrefixBetweenTwoContinuations) {
  PagePool pool(8);
  PrefixCache cache(pool, kPageTokens);
  std::vector<int32_t> first = tokens_from(0, 8);
  const std::vector<uint32_t> first_pages = allocate(pool, 2);
  cache.insert(first, first_pages);
  std::vector<int32_t> second = tokens_from(0, 4);
  second.insert(second.end(), {70, 71, 72, 73});
  std::vector<uint32_t> second_pages = cache.match(second);
  ASSERT_EQ(second_pages.size(), 1u);
  second_pages.push_back(pool.allocate().value());
  cache.insert(second, second_pages);
  EXPECT_EQ(cache.match(first), first_pages);
  EXPECT_EQ(cache.match(second), second_pages);
  EXPECT_EQ(cache.cached_pages(), 3u);
}

TEST(PrefixCache, EvictsTheLeastRecentlyUsedLeafFirst) {
  PagePool pool(4);
  PrefixCache cache(pool, kPageTokens);
  const std::vector<int32_t> old_tokens = tokens_from(0, 8);
  const std::vector<int32_t> new_tokens = tokens_from(100, 8);
  const std::vector<uint32_t> old_pages = allocate(pool, 2);
  const std::vector<uint32_t> new_pages = allocate(pool, 2);
  cache.insert(old_tokens, old_pages);
  cache.insert(new_tokens, new_pages);
  release(pool, old_pages);
  release(pool, new_pages);
  release(pool, cache.match(old_tokens));  // now the old one was used last
  EXPECT_EQ(cache.evict(1), 1u);
  EXPECT_EQ(pool.allocate(), new_pages[1]);
  EXPECT_EQ(cache.evict(1), 1u);
  EXPECT_EQ(pool.allocate(), new_pages[0]);
  EXPECT_EQ(cache.evict(9), 2u);
  EXPECT_EQ(cache.cached_pages(), 0u);
}

TEST(PrefixCache, KeepsAnAncestorWhileAContinuationIsInUse) {
  PagePool pool(3);
  PrefixCache cache(pool, kPageTokens);
  const std::vector<int32_t> tokens = tokens_from(0, 12);
  const std::vector<uint32_t> pages = allocate(pool, 3);
  cache.insert(tokens, pages);
  release(pool, pages);
  const std::vector<uint32_t> held = cache.match(std::span(tokens).first(8));
  EXPECT_EQ(cache.evictable_pages(), 1u);
  EXPECT_EQ(cache.evict(3), 1u);
  EXPECT_EQ(cache.match(tokens), held);
}

TEST(PrefixCache, TakesTheCallersPageWhenNobodyUsesTheKnownOne) {
  PagePool pool(4);
  PrefixCache cache(pool, kPageTokens);
  const std::vector<int32_t> tokens = tokens_from(0, 8);
  const std::vector<uint32_t> first = allocate(pool, 1);
  cache.insert(std::span(tokens).first(4), first);
  const std::vector<uint32_t> second = allocate(pool, 2);
  cache.insert(tokens, second);  // `first` is in use: nothing changes
  EXPECT_EQ(cache.cached_pages(), 1u);
  EXPECT_EQ(cache.match(tokens), first);
  release(pool, first);
  release(pool, first);
  cache.insert(tokens, second);
  EXPECT_EQ(cache.match(tokens), second);
  EXPECT_EQ(pool.references(first[0]), 0u);
  EXPECT_EQ(cache.cached_pages(), 2u);
}

TEST(PrefixCache, ReturnsItsPagesWhenItEnds) {
  PagePool pool(2);
  {
    PrefixCache cache(pool, kPageTokens);
    const std::vector<uint32_t> pages = allocate(pool, 2);
    cache.insert(tokens_from(0, 8), pages);
    release(pool, pages);
    EXPECT_EQ(pool.free_pages(), 0u);
  }
  EXPECT_EQ(pool.free_pages(), 2u);
}

// Sequences come, share, grow and go at random. Every hit must be a page that was computed from the same
// tokens (checked against what was written to the page), and no page may be lost or counted twice.
TEST(PrefixCache, NeverHitsAForeignPageNorLosesOneInARandomLife) {
  constexpr uint32_t kPages = 24;
  std::mt19937 random(7);
  PagePool pool(kPages);
  PrefixCache cache(pool, kPageTokens);
  struct Sequence {
    PrefixFamily family;
    std::vector<int32_t> tokens;
    std::vector<uint32_t> pages;
    // What is in its page of this index: the family, then the tokens up to and with the page.
    std::vector<int32_t> content(size_t index) const {
      std::vector<int32_t> content = {static_cast<int32_t>(family)};
      content.insert(content.end(), tokens.begin(),
                     tokens.begin() + static_cast<std::ptrdiff_t>((index + 1) * kPageTokens));
      return content;
    }
  };
  std::vector<Sequence> running;
  std::vector<std::vector<int32_t>> written(kPages);
  uint32_t hits = 0;
  for (int round = 0; round < 4000; ++round) {
    if (running.size() < 3 && random() % 2 == 0) {
      Sequence sequence{.family = random() % 4 == 0 ? PrefixFamily::long_prompts : PrefixFamily::usual,
                        .tokens = {},
                        .pages = {}};
      sequence.tokens.resize((1 + random() % 5) * kPageTokens);
      for (size_t i = 0; i < sequence.tokens.size(); ++i)  // few distinct prefixes
        sequence.tokens[i] = i % kPageTokens == 0 ? static_cast<int32_t>(random() % 2) : 0;
      sequence.pages = cache.match(sequence.tokens, sequence.family);
      hits += static_cast<uint32_t>(sequence.pages.size());
      for (size_t i = 0; i < sequence.pages.size(); ++i)
        ASSERT_EQ(written[sequence.pages[i]], sequence.content(i));
      while (sequence.pages.size() * kPageTokens < sequence.tokens.size()) {
        if (pool.free_pages() == 0) {
          ASSERT_EQ(cache.evict(1), 1u);
        }
        const uint32_t page = pool.allocate().value();
        written[page] = sequence.content(sequence.pages.size());
        sequence.pages.push_back(page);
      }
      running.push_back(std::move(sequence));
    } else if (!running.empty()) {
      const size_t index = random() % running.size();
      cache.insert(running[index].tokens, running[index].pages, running[index].family);
      if (random() % 2 == 0) continue;
      release(pool, running[index].pages);
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(index));
    }
    std::set<uint32_t> used;
    for (const Sequence& sequence : running) used.insert(sequence.pages.begin(), sequence.pages.end());
    ASSERT_EQ(used.size() + cache.evictable_pages() + pool.free_pages(), kPages);
  }
  EXPECT_GT(hits, 1000u);
  for (const Sequence& sequence : running) release(pool, sequence.pages);
  cache.evict(kPages);
  EXPECT_EQ(pool.free_pages(), kPages);
}

}  // namespace
}  // namespace shoal::runtime
