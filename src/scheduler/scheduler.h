// Continuous batching for one instance, on its owner: which token rows run in the next step. Pure: no I/O, no
// clock, no threads; the same calls in the same order give the same steps.
//
// A step holds decode rows first, then prefill chunks up to the step's token budget, shared evenly among the
// prompts being read, so that neither a long prompt nor many short ones stall anybody beyond one step. With
// several stages as many steps are in flight; a sequence is in at most one unfinished step that samples it.
// Pages freed while a step that reads them is in flight may be given away at once: every stage runs steps in
// order.
//
// When pages run out the youngest sequence gives its pages back and is computed again later, from its prompt
// and the tokens it has said, with the same result.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/limits.h"
#include "base/result.h"
#include "runtime/kv_pages.h"
#include "runtime/step.h"

namespace shoal::scheduler {

using runtime::SequenceId;

struct SchedulerOptions {
  uint32_t epoch = 0;
  uint32_t context_tokens = 0;  // of the instance: prompt and answer together
  uint32_t page_tokens = 32;
  uint32_t page_count = 0;
  uint32_t maximum_in_flight = 1;  // steps; the number of stages
  uint32_t step_tokens = 512;      // row budget of a step; decode rows may exceed it
  size_t maximum_active = limits::kMaxActiveSequences;
  // Layers keep a state per sequence that no page holds: what another sequence computed is of no use.
  bool recurrent = false;
  uint32_t long_after_tokens = 0;  // longer prompts are computed with other frequencies; 0: none are
  size_t maximum_queued = limits::kMaxQueuedRequests;
};

struct Request {
  SequenceId id = 0;               // never used before in this scheduler
  std::vector<int32_t> prompt;     // at least one token
  std::vector<int32_t> committed;  // of the answer, said before (resume)
  runtime::SamplingParameters sampling;
  uint32_t maximum_tokens = 0;    // of the answer, committed ones included; at least one more than those
  std::vector<int32_t> stop_ids;  // end-of-sequence tokens
  bool ignore_end_of_sequence = false;
};

enum class EndReason : uint8_t { stop, length };

struct Event {
  SequenceId id = 0;
  std::vector<runtime::SampledToken> tokens;  // the stop token included
  std::optional<EndReason> end;               // nothing comes after it
  uint32_t cached_tokens = 0;                 // of the prompt, when it was first admitted
};

struct Metrics {
  size_t waiting = 0;
  size_t active = 0;
  size_t steps_in_flight = 0;
  uint32_t pages_total = 0;
  uint32_t pages_used = 0;    // by sequences; shared ones once
  uint32_t pages_cached = 0;  // kept for their content alone
  uint64_t steps = 0;         // totals since the start
  uint64_t rows = 0;
  uint64_t preemptions = 0;
  uint64_t prompt_tokens = 0;         // of admitted prompts
  uint64_t cached_prompt_tokens = 0;  // of these, found in the prefix cache
  uint64_t answer_tokens = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();

  // Errors: unavailable when the queue is full; limit_exceeded when the prompt leaves no room in the context;
  // invalid_argument for an empty prompt or an id in use.
  Result<> add(Request request);
  // Frees the sequence's place and pages at once; no event for it comes after. Unknown ids are ignored.
  void cancel(SequenceId id);
  // The next step to submit; nullopt when nothing can run until a result or a request comes.
  std::optional<runtime::Step> next_step();
  // Results come in the order of steps. One of another epoch is ignored; one that does not answer the oldest
  // step in flight is an internal Error, after which the world must be given up.
  Result<std::vector<Event>> on_result(const runtime::StepResult& result);

  bool idle() const { return waiting_.empty() && active_.empty(); }
  // The longest prompt + answer: the context, or less when the KV cache holds less.
  uint32_t capacity_tokens() const;
  Metrics metrics() const;

 private:
  struct Sequence;
  struct InFlight {
    uint64_t step;
    std::vector<SequenceId> sampled;
  };

  void admit();
  runtime::PrefixFamily family_of(const Sequence& sequence) const;
  std::vector<uint32_t> matching_pages(const Sequence& sequence);
  bool computed_by_another_soon(const Sequence& sequence, size_t matched_pages) const;
  bool give_pages(Sequence& sequence, std::vector<uint32_t> matched);
  std::vector<Sequence*> decoding();
  std::vector<Sequence*> prefilling();
  bool ensure_page(Sequence& sequence);
  std::optional<uint32_t> take_page();
  void preempt(Sequence& sequence);
  void end(Sequence& sequence);
  void add_rows(runtime::Step& step, InFlight& flight, Sequence& sequence, uint32_t rows);
  void publish_full_pages(Sequence& sequence);
  void release_pages(Sequence& sequence);
  void forget_on_workers(Sequence& sequence);
  std::optional<EndReason> end_of(const Sequence& sequence, int32_t token) const;

  SchedulerOptions options_;
  runtime::PagePool pool_;
  runtime::PrefixCache cache_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::map<uint64_t, Sequence*> waiting_;  // by arrival; preempted ones keep theirs
  std::map<uint64_t, Sequence*> active_;
  std::vector<SequenceId> ended_;  // to be told with the next step
  std::deque<InFlight> in_flight_;
  uint64_t arrivals_ = 0;
  uint64_t next_step_id_ = 1;
  Metrics totals_;
};

}  // namespace shoal::scheduler
