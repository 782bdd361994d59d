#include "serving/gateway.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "base/system.h"
#include "serving/prompt_tokens.h"

namespace shoal::serving {

struct Gateway::Generation {
  GenerationId id = 0;
  GenerateRequest request;
  std::shared_ptr<GenerationListener> listener;
  std::shared_ptr<const ModelCard> card;
  std::optional<JournalEntry> journal;  // once submitted
  std::optional<AnswerText> answer;
  Usage usage;
  TimePoint started{};
  TimePoint submitted{};
  TimePoint last_token{};
  bool accepted = false;
  bool ended = false;  // nothing is told to the listener any more
};

Gateway::Gateway(TaskPool& tasks, Directory& directory, const Clock& clock, Send send)
    // Ids of an earlier life of this node must mean nothing to owners that still know them.
    : tasks_(tasks),
      directory_(directory),
      clock_(clock),
      send_(std::move(send)),
      next_id_(random_u64() >> 1) {}

GenerationId Gateway::generate(GenerateRequest request, std::shared_ptr<GenerationListener> listener) {
  auto generation = std::make_shared<Generation>();
  generation->id = next_id_++;
  generation->request = std::move(request);
  generation->listener = std::move(listener);
  generation->started = clock_.now();
  generations_.emplace(generation->id, generation);
  // Through the pool even when the card is at hand: the listener hears nothing before we returned.
  tasks_.run([] { return 0; },
             [this, generation](int) {
               if (generation->ended) return;
               directory_.find_card(generation->request.model,
                                    [this, generation](Result<std::shared_ptr<const ModelCard>> card) {
                                      if (!card) return fail(generation, card.error());
                                      prepare(generation, *std::move(card));
                                    });
             });
  return generation->id;
}

void Gateway::prepare(const Handle& generation, std::shared_ptr<const ModelCard> card) {
  if (generation->ended) return;
  generation->card = std::move(card);
  if (generation->request.max_tokens == 0u)
    return fail(generation, {ErrorCode::invalid_argument, "max_tokens is 0, at least 1 is needed", ""});
  const auto texts =
      generation->request.logprobs ? AnswerText::TokenTexts::give : AnswerText::TokenTexts::leave_out;
  Result<AnswerText> answer = AnswerText::open(generation->card->tokenizer, generation->request.stop, texts);
  if (!answer) return fail(generation, answer.error());
  generation->answer = *std::move(answer);
  tasks_.run([card = generation->card,
              prompt = std::move(generation->request.prompt)] { return prompt_tokens(*card, prompt); },
             [this, generation](Result<std::vector<int32_t>> tokens) {
               if (generation->ended) return;
               if (!tokens) return fail(generation, tokens.error());
               find_instance(generation, *std::move(tokens));
             });
}

void Gateway::find_instance(const Handle& generation, std::vector<int32_t> prompt) {
  directory_.ready_instance(
      generation->request.model, generation->card,
      [this, generation, tokens = std::move(prompt)](Result<cluster::InstanceFact> instance) mutable {
        if (generation->ended) return;
        if (!instance) return fail(generation, instance.error());
        submit(generation, *instance, std::move(tokens));
      });
}

void Gateway::submit(const Handle& generation, const cluster::InstanceFact& instance,
                     std::vector<int32_t> prompt) {
  if (instance.digest != generation->card->stored.digest)
    return fail(generation,
                {ErrorCode::conflict,
                 fmt::format("instance '{}' serves other files of model '{}' than this node holds",
                             instance.id, instance.model),
                 "copy the same files to both nodes"});
  const auto prompt_size = static_cast<uint32_t>(prompt.size());
  if (prompt_size >= instance.context_tokens)
    return fail(generation,
                {ErrorCode::limit_exceeded,
                 fmt::format("This model's maximum context length is {} tokens, but the prompt has {}",
                             instance.context_tokens, prompt_size),
                 "shorten the prompt, or place the model with a longer --context"});
  const GenerateRequest& request = generation->request;
  const uint32_t room = instance.context_tokens - prompt_size;
  generation->usage.prompt_tokens = prompt_size;
  generation->submitted = clock_.now();
  generation->journal =
      JournalEntry{.submit = {.instance = instance.id,
                              .epoch = instance.epoch,
                              .request = generation->id,
                              .prompt = std::move(prompt),
                              .committed = {},
                              .sampling = request.sampling,
                              .maximum_tokens = std::min(room, request.max_tokens.value_or(room)),
                              .stop_ids = generation->card->stop_ids,
                              .ignore_end_of_sequence = request.ignore_end_of_sequence},
                   .owner = instance.owner};
  send_(instance.owner, kSubmitTopic, generation->journal->submit.encode());
}

Gateway::Handle Gateway::find(const cluster::NodeId& sender, RequestId request, uint32_t epoch) const {
  const auto found = generations_.find(request);
  if (found == generations_.end()) return nullptr;
  const std::optional<JournalEntry>& journal = found->second->journal;
  if (!journal || journal->owner != sender || journal->submit.epoch != epoch) return nullptr;
  return found->second;
}

void Gateway::on_accept(const cluster::NodeId& sender, const AcceptMessage& message) {
  const Handle generation = find(sender, message.request, message.epoch);
  if (!generation || generation->accepted) return;
  generation->accepted = true;
  metrics_.prompt_tokens += generation->usage.prompt_tokens;
}

void Gateway::on_tokens(const cluster::NodeId& sender, const TokensMessage& message) {
  if (const Handle generation = find(sender, message.request, message.epoch)) commit(generation, message);
}

void Gateway::on_fail(const cluster::NodeId& sender, const FailMessage& message) {
  if (const Handle generation = find(sender, message.request, message.epoch)) fail(generation, message.error);
}

void Gateway::commit(const Handle& generation, const TokensMessage& message) {
  std::optional<std::span<const runtime::SampledToken>> fresh = generation->journal->commit(message);
  if (!fresh) {
    tell_owner_to_cancel(*generation);
    return fail(generation, {ErrorCode::unavailable,
                             fmt::format("tokens were lost on the way from node '{}'",
                                         directory_.node_name(generation->journal->owner)),
                             "try again"});
  }
  const TimePoint now = clock_.now();
  if (!fresh->empty()) {
    if (generation->usage.completion_tokens == 0) {
      generation->accepted = true;
      generation->usage.cached_tokens = std::min(message.cached_tokens, generation->usage.prompt_tokens);
      metrics_.cached_tokens += generation->usage.cached_tokens;
      metrics_.first_token.observe(now - generation->started);
    } else {
      metrics_.between_tokens.observe(now - generation->last_token);
    }
    generation->last_token = now;
    generation->usage.completion_tokens += static_cast<uint32_t>(fresh->size());
    metrics_.completion_tokens += fresh->size();
  }
  // The end-of-sequence token ends the answer and is no part of its text.
  const bool stopped = message.end == scheduler::EndReason::stop;
  const auto shown = stopped && !fresh->empty() ? fresh->first(fresh->size() - 1) : *fresh;
  Result<AnswerText::Output> output = generation->answer->push(shown);
  if (output && message.end && !output->stop) {
    Result<AnswerText::Output> rest = generation->answer->finish();
    if (rest) {
      output->text += rest->text;
      std::ranges::move(rest->tokens, std::back_inserter(output->tokens));
      output->stop = std::move(rest->stop);
    } else {
      output = std::unexpected(rest.error());
    }
  }
  if (!output) {
    if (!message.end) tell_owner_to_cancel(*generation);
    return fail(generation, output.error());
  }
  std::optional<std::string> stop = std::move(output->stop);
  pass_on(generation, *std::move(output));
  if (generation->ended) return;  // the listener cancelled
  if (stop && !message.end) tell_owner_to_cancel(*generation);
  if (stop) return finish(generation, FinishReason::stop, std::move(stop));
  if (message.end) finish(generation, stopped ? FinishReason::stop : FinishReason::length, std::nullopt);
}

void Gateway::pass_on(const Handle& generation, AnswerText::Output output) {
  if (output.text.empty() && output.tokens.empty()) return;
  generation->listener->on_text(output.text, output.tokens);
}

void Gateway::finish(const Handle& generation, FinishReason reason, std::optional<std::string> stop) {
  generation->ended = true;
  generations_.erase(generation->id);
  (reason == FinishReason::length ? metrics_.by_length : metrics_.stopped) += 1;
  generation->listener->on_finished(reason, std::move(stop), generation->usage);
}

void Gateway::fail(const Handle& generation, const Error& error) {
  if (generation->ended) return;
  generation->ended = true;
  generations_.erase(generation->id);
  metrics_.failed += 1;
  generation->listener->on_error(error);
}

void Gateway::cancel(GenerationId id) {
  const auto found = generations_.find(id);
  if (found == generations_.end()) return;
  const Handle generation = found->second;
  generation->ended = true;
  generations_.erase(found);
  metrics_.cancelled += 1;
  tell_owner_to_cancel(*generation);
}

void Gateway::tell_owner_to_cancel(const Generation& generation) {
  if (!generation.journal) return;
  const SubmitMessage& submit = generation.journal->submit;
  send_(
      generation.journal->owner, kCancelTopic,
      CancelMessage{.instance = submit.instance, .epoch = submit.epoch, .request = submit.request}.encode());
}

template <class Lost>
void Gateway::fail_where(Lost lost, const Error& error) {
  std::vector<Handle> victims;  // a listener may start or cancel generations meanwhile
  for (const auto& [id, generation] : generations_)
    if (lost(*generation)) victims.push_back(generation);
  for (const Handle& victim : victims) fail(victim, error);
}

void Gateway::instance_changed(const std::string& instance, const cluster::InstanceFact* fact,
                               const Error* why) {
  Error error = why != nullptr ? *why
                               : Error{ErrorCode::unavailable,
                                       fmt::format("instance '{}' {}", instance,
                                                   fact == nullptr ? "is gone" : "is no longer what it was"),
                                       "try again"};
  // Whatever ended the instance, to its requests it is a loss that another try may not meet.
  error.code = ErrorCode::unavailable;
  fail_where(
      [&](const Generation& generation) {
        if (!generation.journal || generation.journal->submit.instance != instance) return false;
        return fact == nullptr || fact->epoch != generation.journal->submit.epoch ||
               fact->owner != generation.journal->owner || fact->state == cluster::InstanceState::failed ||
               fact->state == cluster::InstanceState::stopped;
      },
      error);
}

void Gateway::node_left(const cluster::NodeId& node) {
  const Error error{
      ErrorCode::unavailable,
      fmt::format("node '{}', which owned the request, left the cluster", directory_.node_name(node)),
      "try again"};
  fail_where(
      [&](const Generation& generation) { return generation.journal && generation.journal->owner == node; },
      error);
}

void Gateway::fail_all(const Error& why) {
  fail_where([](const Generation&) { return true; }, why);
}

void Gateway::tick(TimePoint now) {
  std::vector<Handle> late;
  for (const auto& [id, generation] : generations_)
    if (generation->journal && !generation->accepted && now - generation->submitted >= kAcceptTimeout)
      late.push_back(generation);
  for (const Handle& generation : late) {
    tell_owner_to_cancel(*generation);
    fail(generation, {ErrorCode::unavailable,
                      fmt::format("node '{}' did not accept the request within {} s",
                                  directory_.node_name(generation->journal->owner),
                                  std::chrono::duration_cast<seconds>(kAcceptTimeout).count()),
                      "try again"});
  }
}

}  // namespace shoal::serving
