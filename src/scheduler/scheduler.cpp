#include "scheduler/scheduler.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/assert.h"
#include "scheduler/sequence.h"

namespace shoal::scheduler {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), pool_(options.page_count), cache_(pool_, options.page_tokens) {
  SHOAL_ASSERT(options.page_tokens > 0 && options.maximum_in_flight > 0 && options.step_tokens > 0);
}

Scheduler::~Scheduler() = default;

uint32_t Scheduler::capacity_tokens() const {
  const uint64_t held = uint64_t{options_.page_count} * options_.page_tokens;
  return static_cast<uint32_t>(std::min<uint64_t>(options_.context_tokens, held));
}

Result<> Scheduler::add(Request request) {
  if (request.prompt.empty()) return fail(ErrorCode::invalid_argument, "the prompt has no tokens");
  if (sequences_.contains(request.id))
    return fail(ErrorCode::invalid_argument, fmt::format("sequence {} is already here", request.id));
  if (request.maximum_tokens <= request.committed.size())
    return fail(ErrorCode::invalid_argument,
                fmt::format("the answer is limited to {} tokens and has {} already", request.maximum_tokens,
                            request.committed.size()));
  const size_t length = request.prompt.size() + request.committed.size();
  if (length >= capacity_tokens())
    return fail(ErrorCode::limit_exceeded,
                fmt::format("This model's maximum context length is {} tokens, but the prompt has {}",
                            capacity_tokens(), length),
                "shorten the prompt, or place the model with a longer --context");
  if (waiting_.size() >= options_.maximum_queued)
    return fail(ErrorCode::unavailable, fmt::format("queue full: {} requests are waiting", waiting_.size()),
                "try again in a moment");
  auto sequence = std::make_unique<Sequence>(std::move(request), arrivals_++);
  waiting_.emplace(sequence->arrival, sequence.get());
  sequences_.emplace(sequence->request.id, std::move(sequence));
  return {};
}

void Scheduler::cancel(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found != sequences_.end()) end(*found->second);
}

std::optional<runtime::Step> Scheduler::next_step() {
  if (in_flight_.size() >= options_.maximum_in_flight) return std::nullopt;
  admit();
  runtime::Step step;
  InFlight flight;
  for (Sequence* sequence : decoding()) {
    // When pages run out the youngest gives up its place: that may be this one now, or have been it before.
    if (active_.contains(sequence->arrival) && ensure_page(*sequence)) add_rows(step, flight, *sequence, 1);
  }
  size_t budget = options_.step_tokens - std::min<size_t>(options_.step_tokens - 1, step.token_ids.size());
  std::vector<Sequence*> prompts = prefilling();
  for (size_t index = 0; index < prompts.size() && budget > 0; ++index) {
    const size_t share = std::max<size_t>(1, budget / (prompts.size() - index));
    const size_t rows = std::min(share, prompts[index]->uncomputed());
    add_rows(step, flight, *prompts[index], static_cast<uint32_t>(rows));
    budget -= rows;
  }
  if (step.sequences.empty()) return std::nullopt;
  step.id = next_step_id_++;
  step.epoch = options_.epoch;
  step.ended = std::exchange(ended_, {});
  flight.step = step.id;
  in_flight_.push_back(std::move(flight));
  totals_.steps += 1;
  totals_.rows += step.token_ids.size();
  return step;
}

// Sequences that are one row short of their next token, those that waited longest first and no more than
// their share of the steps in flight, so that every stage has some; then in order of arrival.
std::vector<Scheduler::Sequence*> Scheduler::decoding() {
  std::vector<Sequence*> ready;
  size_t decoding_count = 0;
  for (auto& [arrival, sequence] : active_) {
    decoding_count += sequence->uncomputed() <= 1;
    if (sequence->uncomputed() == 1) ready.push_back(sequence);
  }
  const size_t share = (decoding_count + options_.maximum_in_flight - 1) / options_.maximum_in_flight;
  if (ready.size() > share) {
    std::ranges::sort(ready, {}, [](const Sequence* sequence) {
      return std::pair(sequence->last_step, sequence->arrival);
    });
    ready.resize(share);
    std::ranges::sort(ready, {}, &Sequence::arrival);
  }
  return ready;
}

// Shortest first, so that what a short prompt leaves of its share goes to longer ones.
std::vector<Scheduler::Sequence*> Scheduler::prefilling() {
  std::vector<Sequence*> prompts;
  for (auto& [arrival, sequence] : active_)
    if (sequence->uncomputed() > 1) prompts.push_back(sequence);
  std::ranges::sort(prompts, {}, [](const Sequence* sequence) {
    return std::pair(sequence->uncomputed(), sequence->arrival);
  });
  return prompts;
}

void Scheduler::add_rows(runtime::Step& step, InFlight& flight, Sequence& sequence, uint32_t rows) {
  const uint32_t context = sequence.computed;
  sequence.computed += rows;
  SHOAL_ASSERT(sequence.computed <= sequence.tokens.size());
  SHOAL_ASSERT(sequence.pages.size() * options_.page_tokens >= sequence.computed);
  const bool samples = sequence.computed == sequence.tokens.size();
  if (!sequence.known_to_workers) {
    step.started.push_back(sequence.start());
    sequence.known_to_workers = true;
  }
  step.sequences.push_back({.sequence = sequence.request.id,
                            .context_tokens = context,
                            .row_count = rows,
                            .samples = samples,
                            .first_page_index = sequence.pages_told,
                            .pages = {sequence.pages.begin() + sequence.pages_told, sequence.pages.end()}});
  step.token_ids.insert(step.token_ids.end(), sequence.tokens.begin() + context,
                        sequence.tokens.begin() + sequence.computed);
  sequence.pages_told = static_cast<uint32_t>(sequence.pages.size());
  sequence.last_step = next_step_id_;
  sequence.sampling = samples;
  if (samples) flight.sampled.push_back(sequence.request.id);
  publish_full_pages(sequence);
}

Result<std::vector<Event>> Scheduler::on_result(const runtime::StepResult& result) {
  std::vector<Event> events;
  if (result.epoch != options_.epoch) return events;
  if (in_flight_.empty() || in_flight_.front().step != result.id)
    return fail(ErrorCode::internal, fmt::format("step {} came back out of order", result.id));
  const InFlight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  if (!std::ranges::equal(flight.sampled, result.tokens, {}, {}, &runtime::StepToken::sequence))
    return fail(ErrorCode::internal,
                fmt::format("step {} came back with tokens of other sequences", result.id));
  for (const runtime::StepToken& token : result.tokens) {
    const auto found = sequences_.find(token.sequence);
    if (found == sequences_.end()) continue;  // cancelled meanwhile
    Sequence& sequence = *found->second;
    sequence.sampling = false;
    sequence.tokens.push_back(token.sampled.token);
    totals_.answer_tokens += 1;
    events.push_back(
        {token.sequence, {token.sampled}, end_of(sequence, token.sampled.token), sequence.cached_tokens});
    if (events.back().end) end(sequence);
  }
  return events;
}

std::optional<EndReason> Scheduler::end_of(const Sequence& sequence, int32_t token) const {
  const Request& request = sequence.request;
  if (!request.ignore_end_of_sequence && std::ranges::find(request.stop_ids, token) != request.stop_ids.end())
    return EndReason::stop;
  if (sequence.answer_tokens() >= request.maximum_tokens) return EndReason::length;
  if (sequence.tokens.size() >= capacity_tokens()) return EndReason::length;
  return std::nullopt;
}

void Scheduler::end(Sequence& sequence) {
  release_pages(sequence);
  forget_on_workers(sequence);
  waiting_.erase(sequence.arrival);
  active_.erase(sequence.arrival);
  sequences_.erase(sequence.request.id);
}

void Scheduler::forget_on_workers(Sequence& sequence) {
  if (!sequence.known_to_workers) return;
  ended_.push_back(sequence.request.id);
  sequence.known_to_workers = false;
}

Metrics Scheduler::metrics() const {
  Metrics metrics = totals_;
  metrics.waiting = waiting_.size();
  metrics.active = active_.size();
  metrics.steps_in_flight = in_flight_.size();
  metrics.pages_total = options_.page_count;
  metrics.pages_cached = cache_.evictable_pages();
  metrics.pages_used = options_.page_count - pool_.free_pages() - metrics.pages_cached;
  return metrics;
}

}  // namespace shoal::scheduler
