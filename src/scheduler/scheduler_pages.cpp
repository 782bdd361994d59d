// The scheduler's dealings with KV pages: admission, growth, preemption and the prefix cache.
#include <algorithm>

#include "base/assert.h"
#include "scheduler/scheduler.h"
#include "scheduler/sequence.h"

namespace shoal::scheduler {

// First come, first served: who has no pages yet waits, and so does everybody behind. Only a sequence whose
// next page is just being computed for another steps aside for it.
void Scheduler::admit() {
  for (auto next = waiting_.begin(); next != waiting_.end() && active_.size() < options_.maximum_active;) {
    Sequence& sequence = *next->second;
    if (sequence.sampling) return;  // preempted with a token on its way, which will have to be computed too
    std::vector<uint32_t> matched = matching_pages(sequence);
    if (computed_by_another_soon(sequence, matched.size())) {
      for (uint32_t page : matched) pool_.release(page);
      ++next;
      continue;
    }
    if (!give_pages(sequence, std::move(matched))) return;
    next = waiting_.erase(next);
    active_.emplace(sequence.arrival, &sequence);
  }
}

runtime::PrefixFamily Scheduler::family_of(const Sequence& sequence) const {
  const bool is_long =
      options_.long_after_tokens > 0 && sequence.request.prompt.size() > options_.long_after_tokens;
  return is_long ? runtime::PrefixFamily::long_prompts : runtime::PrefixFamily::usual;
}

std::vector<uint32_t> Scheduler::matching_pages(const Sequence& sequence) {
  if (options_.recurrent) return {};
  // One token at least must run, so that there is something to sample from.
  return cache_.match(std::span(sequence.tokens).first(sequence.tokens.size() - 1), family_of(sequence));
}

bool Scheduler::computed_by_another_soon(const Sequence& sequence, size_t matched_pages) const {
  if (options_.recurrent) return false;
  const size_t wanted = (matched_pages + 1) * options_.page_tokens;
  if (sequence.tokens.size() <= wanted) return false;
  return std::ranges::any_of(active_, [&](const auto& entry) {
    const Sequence& other = *entry.second;
    return other.uncomputed() > 1 && other.computed < wanted && other.tokens.size() >= wanted &&
           family_of(other) == family_of(sequence) &&
           std::equal(other.tokens.begin(), other.tokens.begin() + static_cast<std::ptrdiff_t>(wanted),
                      sequence.tokens.begin());
  });
}

// Gives a sequence pages for all it has so far. To keep admission from taking what those who decode need
// next, a page for each of them must stay free; a sequence that is alone takes what it needs.
bool Scheduler::give_pages(Sequence& sequence, std::vector<uint32_t> matched) {
  const size_t total = (sequence.tokens.size() + options_.page_tokens - 1) / options_.page_tokens;
  const size_t missing = total - matched.size();
  const size_t available = pool_.free_pages() + cache_.evictable_pages();
  if (missing + active_.size() > available) {
    for (uint32_t page : matched) pool_.release(page);
    SHOAL_ASSERT(!active_.empty());  // add() checked that it fits alone
    return false;
  }
  sequence.pages = std::move(matched);
  sequence.pages_published = static_cast<uint32_t>(sequence.pages.size());
  sequence.computed = sequence.pages_published * options_.page_tokens;
  sequence.pages_told = 0;
  if (!sequence.admitted_before) {
    const auto prompt_tokens = static_cast<uint32_t>(sequence.request.prompt.size());
    sequence.cached_tokens = std::min(sequence.computed, prompt_tokens);
    totals_.prompt_tokens += prompt_tokens;
    totals_.cached_prompt_tokens += sequence.cached_tokens;
    sequence.admitted_before = true;
  }
  while (sequence.pages.size() < total) {
    const std::optional<uint32_t> page = take_page();
    SHOAL_ASSERT(page.has_value());
    sequence.pages.push_back(*page);
  }
  return true;
}

std::optional<uint32_t> Scheduler::take_page() {
  if (pool_.free_pages() == 0) cache_.evict(1);
  return pool_.allocate();
}

// Room for one more row; at the price of the youngest sequence when there is none. False: the youngest was
// itself.
bool Scheduler::ensure_page(Sequence& sequence) {
  while (sequence.pages.size() * options_.page_tokens <= sequence.computed) {
    if (const std::optional<uint32_t> page = take_page()) {
      sequence.pages.push_back(*page);
      continue;
    }
    Sequence& youngest = *active_.rbegin()->second;
    preempt(youngest);
    if (&youngest == &sequence) return false;
  }
  return true;
}

void Scheduler::preempt(Sequence& sequence) {
  totals_.preemptions += 1;
  release_pages(sequence);
  forget_on_workers(sequence);
  sequence.computed = 0;
  active_.erase(sequence.arrival);
  waiting_.emplace(sequence.arrival, &sequence);
}

// A page that the step just handed out fills may be shared at once: whoever uses it comes in a later step.
void Scheduler::publish_full_pages(Sequence& sequence) {
  if (options_.recurrent) return;
  const uint32_t full = sequence.computed / options_.page_tokens;
  if (full <= sequence.pages_published) return;
  cache_.insert(std::span(sequence.tokens).first(size_t{full} * options_.page_tokens),
                std::span(sequence.pages).first(full), family_of(sequence));
  sequence.pages_published = full;
}

void Scheduler::release_pages(Sequence& sequence) {
  for (uint32_t page : sequence.pages) pool_.release(page);
  sequence.pages.clear();
  sequence.pages_told = 0;
  sequence.pages_published = 0;
}

}  // namespace shoal::scheduler
