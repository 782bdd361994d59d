#include "scheduler/scheduler.h"

#include <deque>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <set>

#include "scheduler/fake_world.h"

namespace shoal::scheduler {
namespace {

constexpr int32_t kVocabulary = 97;
constexpr int32_t kStopToken = 3;

using Answers = std::map<SequenceId, std::vector<int32_t>>;

std::vector<int32_t> expected_answer(const Request& request, uint32_t capacity,
                                     uint32_t long_after_tokens = 0) {
  uint64_t state = first_state(request.prompt.size(), long_after_tokens);
  for (int32_t token : request.prompt) state = extend(state, token);
  std::vector<int32_t> answer;
  while (answer.size() < request.maximum_tokens && request.prompt.size() + answer.size() < capacity) {
    answer.push_back(choose(state, request.sampling.seed, kVocabulary));
    state = extend(state, answer.back());
    if (!request.ignore_end_of_sequence && answer.back() == kStopToken) break;
  }
  return answer;
}

Request make_request(SequenceId id, std::vector<int32_t> prompt, uint32_t maximum_tokens) {
  Request request;
  request.id = id;
  request.prompt = std::move(prompt);
  request.maximum_tokens = maximum_tokens;
  request.sampling.seed = id * 31;
  request.stop_ids = {kStopToken};
  return request;
}

std::vector<int32_t> counting_prompt(size_t length, int32_t first = 5) {
  std::vector<int32_t> prompt(length);
  for (size_t index = 0; index < length; ++index)
    prompt[index] = static_cast<int32_t>((first + index) % kVocabulary);
  return prompt;
}

SchedulerOptions plenty() {
  SchedulerOptions options;
  options.context_tokens = 512;
  options.page_tokens = 4;
  options.page_count = 1024;
  options.step_tokens = 16;
  return options;
}

// Steps go to the world at once, results come back when asked for.
struct Rehearsal {
  explicit Rehearsal(const SchedulerOptions& options)
      : scheduler(options),
        world(options.page_tokens, options.page_count, kVocabulary, {},
              {.state_slots = options.recurrent ? static_cast<uint32_t>(options.maximum_active) : 0,
               .long_after_tokens = options.long_after_tokens}) {}

  bool submit() {
    std::optional<runtime::Step> step = scheduler.next_step();
    if (!step) return false;
    rows.push_back(step->token_ids.size());
    results.push_back(world.run(*step));
    last = std::move(*step);
    return true;
  }
  bool deliver() {
    if (results.empty()) return false;
    const runtime::StepResult result = results.front();
    results.pop_front();
    Result<std::vector<Event>> events = scheduler.on_result(result);
    EXPECT_TRUE(events.has_value()) << events.error().text();
    if (!events) return false;
    for (const Event& event : *events) {
      EXPECT_FALSE(ended.contains(event.id)) << "an event after the end of " << event.id;
      for (const auto& token : event.tokens) answers[event.id].push_back(token.token);
      if (event.end) ended[event.id] = *event.end;
      cached[event.id] = event.cached_tokens;
    }
    return true;
  }
  void finish() {
    for (int guard = 0; guard < 100000; ++guard) {
      const bool moved = submit();
      if (!moved && !deliver()) break;
    }
    EXPECT_TRUE(scheduler.idle());
  }

  Scheduler scheduler;
  FakeWorld world;
  std::deque<runtime::StepResult> results;
  runtime::Step last;
  std::vector<size_t> rows;
  Answers answers;
  std::map<SequenceId, EndReason> ended;
  std::map<SequenceId, uint32_t> cached;
};

std::vector<Request> random_requests(std::mt19937_64& random, uint32_t capacity) {
  std::vector<Request> requests;
  const std::vector<int32_t> shared = counting_prompt(1 + random() % (capacity / 2), 11);
  const size_t count = 1 + random() % 20;
  for (size_t index = 0; index < count; ++index) {
    std::vector<int32_t> prompt;
    if (random() % 2) prompt = shared;
    const size_t own = 1 + random() % (capacity - prompt.size() - 1);
    for (size_t token = 0; token < own && prompt.size() + 1 < capacity; ++token)
      prompt.push_back(static_cast<int32_t>(random() % kVocabulary));
    requests.push_back(make_request(index + 1, std::move(prompt), static_cast<uint32_t>(1 + random() % 40)));
    requests.back().ignore_end_of_sequence = random() % 2;
  }
  return requests;
}

TEST(Scheduler, TokensDoNotDependOnBudgetArrivalInFlightPagesOrCancelledNeighbours) {
  uint64_t preemptions = 0, cached = 0, finished = 0, cancelled_count = 0;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    SchedulerOptions options;
    options.epoch = 3;
    options.page_tokens = static_cast<uint32_t>(1 + random() % 8);
    options.context_tokens = static_cast<uint32_t>(16 + random() % 80);
    const uint32_t pages_of_one = (options.context_tokens + options.page_tokens - 1) / options.page_tokens;
    options.page_count = pages_of_one * static_cast<uint32_t>(random() % 3 == 0 ? 20 : 1) +
                         static_cast<uint32_t>(random() % 8);
    options.maximum_in_flight = static_cast<uint32_t>(1 + random() % 4);
    options.step_tokens = static_cast<uint32_t>(1 + random() % 40);
    options.maximum_active = 1 + random() % 16;
    options.recurrent = seed % 3 == 1;
    options.long_after_tokens = seed % 3 == 2 ? options.context_tokens / 4 : 0;
    Rehearsal run(options);
    const uint32_t capacity = run.scheduler.capacity_tokens();
    std::vector<Request> requests = random_requests(random, capacity);
    std::set<SequenceId> cancelled;
    size_t next = 0;
    for (int guard = 0; guard < 200000 && (next < requests.size() || !run.scheduler.idle()); ++guard) {
      const uint64_t move = random() % 8;
      if (move == 0 && next < requests.size()) {
        Request request = requests[next++];
        // Some resume in the middle of their answer.
        const std::vector<int32_t> whole = expected_answer(request, capacity, options.long_after_tokens);
        if (random() % 4 == 0 && whole.size() > 1) {
          request.committed.assign(whole.begin(),
                                   whole.begin() + static_cast<std::ptrdiff_t>(random() % whole.size()));
          run.answers[request.id] = request.committed;
        }
        ASSERT_TRUE(run.scheduler.add(request).has_value());
      } else if (move == 1 && random() % 4 == 0 && next > 0) {
        const SequenceId victim = 1 + random() % next;
        if (!run.ended.contains(victim)) cancelled.insert(victim);
        run.scheduler.cancel(victim);
      } else if (move < 5) {
        run.submit();
      } else {
        run.deliver();
      }
    }
    run.finish();
    if (::testing::Test::HasFailure()) return;
    for (const Request& request : requests) {
      const std::vector<int32_t> expected = expected_answer(request, capacity, options.long_after_tokens);
      std::vector<int32_t>& seen = run.answers[request.id];
      if (cancelled.contains(request.id)) {
        ASSERT_LE(seen.size(), expected.size());
        ASSERT_TRUE(std::equal(seen.begin(), seen.end(), expected.begin()));
        ASSERT_FALSE(run.ended.contains(request.id));
        ++cancelled_count;
        continue;
      }
      ASSERT_EQ(seen, expected) << "request " << request.id;
      const bool stopped = !request.ignore_end_of_sequence && expected.back() == kStopToken;
      ASSERT_EQ(run.ended.at(request.id), stopped ? EndReason::stop : EndReason::length);
      ++finished;
    }
    const Metrics metrics = run.scheduler.metrics();
    ASSERT_EQ(metrics.pages_used, 0u) << "pages leaked";
    ASSERT_EQ(metrics.active + metrics.waiting + metrics.steps_in_flight, 0u);
    preemptions += metrics.preemptions;
    cached += metrics.cached_prompt_tokens;
    ASSERT_TRUE(!options.recurrent || metrics.cached_prompt_tokens == 0) << "a state cannot be shared";
  }
  // The seeds must have met what they are for.
  EXPECT_GT(preemptions, 100u);
  EXPECT_GT(cached, 1000u);
  EXPECT_GT(finished, 1000u);
  EXPECT_GT(cancelled_count, 100u);
}

TEST(Scheduler, LongPromptTakesNoMoreThanTheBudgetAndDecodesGoOn) {
  Rehearsal run(plenty());
  ASSERT_TRUE(run.scheduler.add(make_request(1, counting_prompt(3), 400)).has_value());
  run.submit();
  run.deliver();
  ASSERT_TRUE(run.scheduler.add(make_request(2, counting_prompt(300, 40), 5)).has_value());
  for (int step = 0; step < 10 && !run.ended.contains(1); ++step) {
    ASSERT_TRUE(run.submit());
    EXPECT_LE(run.rows.back(), 16u);
    EXPECT_EQ(run.last.sequences.front().sequence, 1u) << "decode rows come first";
    run.deliver();
  }
}

TEST(Scheduler, ShortPromptOvertakesALongOneThatIsBeingRead) {
  Rehearsal run(plenty());
  ASSERT_TRUE(run.scheduler.add(make_request(1, counting_prompt(400), 5)).has_value());
  run.submit();
  run.deliver();
  ASSERT_TRUE(run.scheduler.add(make_request(2, counting_prompt(6, 50), 5)).has_value());
  run.submit();
  run.deliver();
  EXPECT_EQ(run.answers[2].size(), 1u);
  EXPECT_TRUE(run.answers[1].empty());
}

TEST(Scheduler, SameLongPromptsAreComputedOnce) {
  Rehearsal run(plenty());
  for (SequenceId id = 1; id <= 4; ++id)
    ASSERT_TRUE(run.scheduler.add(make_request(id, counting_prompt(100), 4)).has_value());
  run.finish();
  EXPECT_EQ(run.cached[1], 0u);
  for (SequenceId id = 2; id <= 4; ++id) EXPECT_EQ(run.cached[id], 96u);
  EXPECT_EQ(run.answers.size(), 4u);
}

TEST(Scheduler, ARecurrentModelsPromptsAreEachComputedFromTheirFirstToken) {
  SchedulerOptions options = plenty();
  options.recurrent = true;
  options.maximum_active = 3;
  Rehearsal run(options);
  for (SequenceId id = 1; id <= 5; ++id)
    ASSERT_TRUE(run.scheduler.add(make_request(id, counting_prompt(100), 4)).has_value());
  run.finish();
  for (SequenceId id = 1; id <= 5; ++id) EXPECT_EQ(run.cached[id], 0u);
  EXPECT_EQ(run.scheduler.metrics().pages_cached, 0u);
  EXPECT_EQ(run.answers.size(), 5u);
}

TEST(Scheduler, PromptsOnBothSidesOfTheLongOnesLimitShareNoPages) {
  SchedulerOptions options = plenty();
  options.long_after_tokens = 60;
  Rehearsal run(options);
  for (const auto& [id, tokens] : std::map<SequenceId, size_t>{{1, 60}, {2, 61}, {3, 100}, {4, 40}}) {
    ASSERT_TRUE(run.scheduler.add(make_request(id, counting_prompt(tokens), 2)).has_value());
    run.finish();
  }
  EXPECT_EQ(run.cached[1], 0u);
  EXPECT_EQ(run.cached[2], 0u);
  EXPECT_EQ(run.cached[3], 60u);  // of the second
  EXPECT_EQ(run.cached[4], 36u);  // of the first: one token must run
}

// The answer goes over the limit, the prompt does not: a preemption or a resume must not change its kind.
TEST(Scheduler, TheOriginalPromptDecidesWhetherASequenceIsLong) {
  SchedulerOptions options = plenty();
  options.long_after_tokens = 20;
  Rehearsal run(options);
  Request request = make_request(1, counting_prompt(18), 12);
  request.ignore_end_of_sequence = true;
  const std::vector<int32_t> whole = expected_answer(request, run.scheduler.capacity_tokens(), 20);
  request.committed.assign(whole.begin(), whole.begin() + 7);
  ASSERT_TRUE(run.scheduler.add(request).has_value());
  ASSERT_TRUE(run.submit());
  ASSERT_EQ(run.last.started.size(), 1u);
  EXPECT_EQ(run.last.started[0].prompt_tokens, 18u);
  run.finish();
  EXPECT_EQ(run.answers[1], std::vector<int32_t>(whole.begin() + 7, whole.end()));
}

TEST(Scheduler, SeveralStagesGetStepsOfDifferentSequences) {
  SchedulerOptions options = plenty();
  options.maximum_in_flight = 3;
  Rehearsal run(options);
  for (SequenceId id = 1; id <= 6; ++id) {
    Request request = make_request(id, counting_prompt(2, static_cast<int32_t>(id * 7)), 50);
    request.ignore_end_of_sequence = true;
    ASSERT_TRUE(run.scheduler.add(std::move(request)).has_value());
  }
  for (int round = 0; round < 8; ++round) {
    run.submit();
    run.deliver();
  }
  // All decode now; each of three steps in flight has two of the six.
  while (run.deliver()) {
  }
  for (int flight = 0; flight < 3; ++flight) {
    ASSERT_TRUE(run.submit());
    EXPECT_EQ(run.rows.back(), 2u);
  }
  EXPECT_FALSE(run.submit()) << "no more steps than stages";
}

TEST(Scheduler, FullQueueIsRefusedAndTakesRequestsAgainLater) {
  SchedulerOptions options = plenty();
  options.maximum_queued = 2;
  Rehearsal run(options);
  ASSERT_TRUE(run.scheduler.add(make_request(1, {5}, 3)).has_value());
  ASSERT_TRUE(run.scheduler.add(make_request(2, {6}, 3)).has_value());
  const Result<> refused = run.scheduler.add(make_request(3, {7}, 3));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("queue full"));
  run.finish();
  EXPECT_TRUE(run.scheduler.add(make_request(3, {7}, 3)).has_value());
}

TEST(Scheduler, PromptThatFillsTheContextIsRefusedWithTheNumber) {
  Rehearsal run(plenty());
  const Result<> refused = run.scheduler.add(make_request(1, counting_prompt(512), 3));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::limit_exceeded);
  EXPECT_THAT(refused.error().message,
              ::testing::HasSubstr("This model's maximum context length is 512 tokens"));
  EXPECT_TRUE(run.scheduler.add(make_request(1, counting_prompt(511), 3)).has_value());
  run.finish();
  EXPECT_EQ(run.answers[1].size(), 1u);
  EXPECT_EQ(run.ended.at(1), EndReason::length);
}

TEST(Scheduler, CancelFreesPagesWithinAStepThoughItsTokenIsOnTheWay) {
  Rehearsal run(plenty());
  ASSERT_TRUE(run.scheduler.add(make_request(1, counting_prompt(9), 50)).has_value());
  run.submit();
  EXPECT_GT(run.scheduler.metrics().pages_used, 0u);
  run.scheduler.cancel(1);
  EXPECT_EQ(run.scheduler.metrics().pages_used, 0u);
  ASSERT_TRUE(run.deliver());
  EXPECT_TRUE(run.answers.empty());
  ASSERT_TRUE(run.scheduler.add(make_request(2, {4}, 2)).has_value());
  run.submit();
  EXPECT_EQ(run.last.ended, std::vector<SequenceId>{1});
}

TEST(Scheduler, LateOrForeignResultsAreIgnoredOrRefused) {
  Rehearsal run(plenty());
  ASSERT_TRUE(run.scheduler.add(make_request(1, {5, 6}, 5)).has_value());
  run.submit();
  runtime::StepResult old = run.results.front();
  old.epoch += 1;
  EXPECT_TRUE(run.scheduler.on_result(old)->empty());
  runtime::StepResult skipped = run.results.front();
  skipped.id += 1;
  EXPECT_EQ(run.scheduler.on_result(skipped).error().code, ErrorCode::internal);
  run.finish();
  EXPECT_FALSE(run.answers[1].empty());
}

TEST(Scheduler, PenaltiesTravelWithTheirHistoryOnlyWhenTheyAreOn) {
  Rehearsal run(plenty());
  Request plain = make_request(1, {5, 6}, 5);
  Request penalised = make_request(2, {7, 8}, 5);
  penalised.committed = {9};
  penalised.sampling.presence_penalty = 0.5f;
  ASSERT_TRUE(run.scheduler.add(plain).has_value());
  ASSERT_TRUE(run.scheduler.add(penalised).has_value());
  run.submit();
  ASSERT_EQ(run.last.started.size(), 2u);
  EXPECT_TRUE(run.last.started[0].prompt.empty());
  EXPECT_EQ(run.last.started[1].prompt, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(run.last.started[1].answer, (std::vector<int32_t>{9}));
}

}  // namespace
}  // namespace shoal::scheduler
