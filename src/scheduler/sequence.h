// A sequence as the scheduler keeps it. Internal to the room.
#pragma once

#include "scheduler/scheduler.h"

namespace shoal::scheduler {

struct Scheduler::Sequence {
  Sequence(Request given, uint64_t arrival_number) : request(std::move(given)), arrival(arrival_number) {
    tokens = request.prompt;
    tokens.insert(tokens.end(), request.committed.begin(), request.committed.end());
  }

  Request request;
  uint64_t arrival;
  std::vector<int32_t> tokens;   // prompt, then answer so far
  std::vector<uint32_t> pages;   // token t is in pages[t / page_tokens]; each holds a reference in the pool
  uint32_t computed = 0;         // tokens whose KV is in the cache once the steps handed out have run
  uint32_t pages_told = 0;       // of `pages`, those the workers know
  uint32_t pages_published = 0;  // of `pages`, those the prefix cache knows
  uint32_t cached_tokens = 0;    // of the prompt, found in the prefix cache at the first admission
  uint64_t last_step = 0;        // the last step that has rows of it
  bool admitted_before = false;
  bool known_to_workers = false;
  bool sampling = false;  // a step in flight will bring its next token

  size_t uncomputed() const { return tokens.size() - computed; }
  size_t answer_tokens() const { return tokens.size() - request.prompt.size(); }

  runtime::SequenceStart start() const {
    const runtime::SamplingParameters& sampler = request.sampling;
    runtime::SequenceStart start{.sequence = request.id,
                                 .prompt_tokens = static_cast<uint32_t>(request.prompt.size()),
                                 .sampling = sampler,
                                 .prompt = {},
                                 .answer = {}};
    if (sampler.repetition_penalty != 1 || sampler.presence_penalty != 0 || sampler.frequency_penalty != 0) {
      start.prompt = request.prompt;
      start.answer.assign(tokens.begin() + static_cast<std::ptrdiff_t>(request.prompt.size()), tokens.end());
    }
    return start;
  }
};

}  // namespace shoal::scheduler
