#include "serving/owner.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "cluster/world.h"

namespace shoal::serving {
namespace {

constexpr uint32_t kLeastStepTokens = 128;  // that still make full tiles of the kernels

scheduler::SchedulerOptions scheduler_options(const cluster::InstanceFact& instance,
                                              const OwnedModel& model) {
  scheduler::SchedulerOptions options;
  options.epoch = instance.epoch;
  options.context_tokens = instance.context_tokens;
  options.page_tokens = std::max(1u, instance.kv_page_tokens);
  options.page_count = instance.kv_page_count;
  const uint32_t stages = std::max(1u, cluster::stage_count(instance));
  options.maximum_in_flight = stages;
  // A prompt goes through the stages piece by piece: the smaller the pieces, the sooner all stages work.
  options.step_tokens = std::max(kLeastStepTokens, options.step_tokens / stages);
  options.recurrent = instance.state_slots > 0;
  if (options.recurrent)
    options.maximum_active = std::min<size_t>(options.maximum_active, instance.state_slots);
  options.long_after_tokens = model.long_after_tokens;
  return options;
}

// Follows changes within some ten observations, and does not jump at one.
double smooth(double average, double seen) {
  return average == 0 ? seen : average + 0.1 * (seen - average);
}

}  // namespace

InstanceOwner::InstanceOwner(const cluster::InstanceFact& instance, const OwnedModel& model,
                             const Clock& clock, Ports ports)
    : instance_(instance),
      model_(model),
      clock_(clock),
      ports_(std::move(ports)),
      scheduler_(scheduler_options(instance, model)) {}

void InstanceOwner::submit(const cluster::NodeId& gateway, SubmitMessage message) {
  const RequestId request = message.request;
  const Key key{gateway, request};
  if (given_up_ || message.epoch != instance_.epoch)
    return refuse(gateway, message.epoch, request,
                  {ErrorCode::unavailable,
                   fmt::format("instance '{}' has moved on from epoch {} to {}", instance_.id, message.epoch,
                               instance_.epoch),
                   "try again"});
  const Bytes accepted = AcceptMessage{.epoch = instance_.epoch, .request = request}.encode();
  if (by_key_.contains(key)) return ports_.send(gateway, kAcceptTopic, accepted);  // told twice
  if (ended_.contains(key)) return;                                                // and late
  const auto outside = [this](int32_t token) {
    return token < 0 || static_cast<uint32_t>(token) >= model_.vocabulary_size;
  };
  for (const std::vector<int32_t>* tokens : {&message.prompt, &message.committed})
    if (const auto wrong = std::ranges::find_if(*tokens, outside); wrong != tokens->end())
      return refuse(
          gateway, message.epoch, request,
          {ErrorCode::invalid_argument,
           fmt::format("token id {} is outside the vocabulary of {}", *wrong, model_.vocabulary_size), ""});

  const scheduler::SequenceId id = next_sequence_++;
  const auto committed = static_cast<uint32_t>(message.committed.size());
  Result<> added = scheduler_.add({.id = id,
                                   .prompt = std::move(message.prompt),
                                   .committed = std::move(message.committed),
                                   .sampling = std::move(message.sampling),
                                   .maximum_tokens = message.maximum_tokens,
                                   .stop_ids = std::move(message.stop_ids),
                                   .ignore_end_of_sequence = message.ignore_end_of_sequence});
  if (!added) return refuse(gateway, message.epoch, request, added.error());
  by_key_.emplace(key, id);
  running_.emplace(id, Running{.key = key, .answer_tokens = committed, .last_token = {}});
  ports_.send(gateway, kAcceptTopic, accepted);
  pump();
}

void InstanceOwner::refuse(const cluster::NodeId& gateway, uint32_t epoch, RequestId request,
                           const Error& error) {
  ports_.send(gateway, kFailTopic, FailMessage{.epoch = epoch, .request = request, .error = error}.encode());
}

void InstanceOwner::cancel(const cluster::NodeId& gateway, RequestId request) {
  const auto found = by_key_.find({gateway, request});
  if (found == by_key_.end()) return;
  scheduler_.cancel(found->second);
  forget(found->second);
  pump();
}

void InstanceOwner::gateway_left(const cluster::NodeId& gateway) {
  std::vector<scheduler::SequenceId> orphans;
  for (const auto& [key, id] : by_key_)
    if (key.first == gateway) orphans.push_back(id);
  for (scheduler::SequenceId id : orphans) {
    scheduler_.cancel(id);
    forget(id);
  }
  if (!orphans.empty()) {
    log_info("owner", "{}: freed {} requests of a gateway that left", instance_.id, orphans.size());
    pump();
  }
}

void InstanceOwner::forget(scheduler::SequenceId id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  ended_.add(found->second.key);
  by_key_.erase(found->second.key);
  running_.erase(found);
}

Result<> InstanceOwner::on_step_result(const runtime::StepResult& result) {
  if (given_up_) return {};
  SHOAL_TRY(const std::vector<scheduler::Event> events, scheduler_.on_result(result));
  learn(result);
  // The stages come first: the next step is on its way before the tokens of this one are told.
  pump();
  for (const scheduler::Event& event : events) forward(event);
  return {};
}

void InstanceOwner::learn(const runtime::StepResult& result) {
  const size_t stages = std::min<size_t>(result.stage_milliseconds.size(), cluster::stage_count(instance_));
  const auto add = [&](std::vector<double>& times) {
    times.resize(stages);
    for (size_t stage = 0; stage < stages; ++stage)
      times[stage] = smooth(times[stage], result.stage_milliseconds[stage]);
  };
  add(figures_.stage_milliseconds);
  while (!one_row_steps_.empty() && one_row_steps_.front() < result.id) one_row_steps_.pop_front();
  if (one_row_steps_.empty() || one_row_steps_.front() != result.id) return;
  one_row_steps_.pop_front();
  add(figures_.token_milliseconds);
}

void InstanceOwner::forward(const scheduler::Event& event) {
  const auto found = running_.find(event.id);
  if (found == running_.end()) return;
  Running& running = found->second;
  const TimePoint now = clock_.now();
  if (running.last_token != TimePoint{} && now > running.last_token)
    figures_.tokens_per_second = smooth(figures_.tokens_per_second, static_cast<double>(event.tokens.size()) /
                                                                        to_seconds(now - running.last_token));
  running.last_token = now;
  const TokensMessage message{.epoch = instance_.epoch,
                              .request = running.key.second,
                              .first_index = running.answer_tokens,
                              .cached_tokens = event.cached_tokens,
                              .tokens = event.tokens,
                              .end = event.end};
  running.answer_tokens += static_cast<uint32_t>(event.tokens.size());
  const cluster::NodeId gateway = running.key.first;
  if (event.end) forget(event.id);
  ports_.send(gateway, kTokensTopic, message.encode());
}

void InstanceOwner::fail_all(const Error& why) {
  given_up_ = true;
  for (const auto& [key, id] : std::exchange(by_key_, {})) {
    scheduler_.cancel(id);
    refuse(key.first, instance_.epoch, key.second, why);
  }
  running_.clear();
}

void InstanceOwner::pump() {
  if (given_up_) return;
  while (const std::optional<runtime::Step> step = scheduler_.next_step()) {
    if (step->token_ids.size() == 1) one_row_steps_.push_back(step->id);
    ports_.submit_step(*step);
  }
}

}  // namespace shoal::serving
