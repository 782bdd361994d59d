#include "api/generation_run.h"

#include "base/assert.h"

namespace shoal::api {
namespace {

class GenerationRun : public std::enable_shared_from_this<GenerationRun> {
 public:
  GenerationRun(serving::Service& service, GenerationPlan plan, std::unique_ptr<AnswerFormat> format,
                std::shared_ptr<Exchange> exchange)
      : service_(service),
        plan_(std::move(plan)),
        format_(std::move(format)),
        exchange_(std::move(exchange)) {}

  void start();
  void on_text(size_t choice, std::string_view text, const std::vector<serving::TokenText>& tokens);
  void on_finished(size_t choice, serving::FinishReason reason, std::optional<std::string> stop_string,
                   const serving::Usage& usage);
  void on_error(const ApiError& error);

 private:
  void send(const std::string& piece);
  void begin_stream();
  void complete();
  void cancel_all();
  serving::Usage total_usage() const;

  serving::Service& service_;
  GenerationPlan plan_;
  std::unique_ptr<AnswerFormat> format_;
  std::shared_ptr<Exchange> exchange_;
  std::vector<Choice> choices_;
  std::vector<std::optional<serving::GenerationId>> generations_;  // nullopt once ended
  size_t running_ = 0;
  bool streaming_ = false;  // the head went out
  bool over_ = false;
};

class ChoiceListener final : public serving::GenerationListener {
 public:
  ChoiceListener(std::shared_ptr<GenerationRun> run, size_t choice) : run_(std::move(run)), choice_(choice) {}

  void on_text(std::string_view text, const std::vector<serving::TokenText>& tokens) override {
    run_->on_text(choice_, text, tokens);
  }
  void on_finished(serving::FinishReason reason, std::optional<std::string> stop_string,
                   const serving::Usage& usage) override {
    run_->on_finished(choice_, reason, std::move(stop_string), usage);
  }
  void on_error(const Error& error) override { run_->on_error(from_error(error)); }

 private:
  std::shared_ptr<GenerationRun> run_;
  size_t choice_;
};

void GenerationRun::start() {
  running_ = plan_.requests.size();
  SHOAL_ASSERT(running_ > 0);
  choices_.resize(running_);
  generations_.resize(running_);
  exchange_->on_closed([weak = weak_from_this()] {
    if (auto run = weak.lock(); run && !run->over_) {
      run->over_ = true;
      run->cancel_all();
    }
  });
  for (size_t i = 0; i < choices_.size() && !over_; ++i) {
    auto listener = std::make_shared<ChoiceListener>(shared_from_this(), i);
    generations_[i] = service_.generate(std::move(plan_.requests[i]), std::move(listener));
  }
}

void GenerationRun::begin_stream() {
  if (streaming_) return;
  streaming_ = true;
  exchange_->start_stream({.status = 200,
                           .content_type = format_->stream_content_type(),
                           .body = {},
                           .headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}}});
  send(format_->stream_start(choices_.size()));
}

void GenerationRun::send(const std::string& piece) {
  if (!piece.empty()) exchange_->write(piece);
}

void GenerationRun::on_text(size_t choice, std::string_view text,
                            const std::vector<serving::TokenText>& tokens) {
  if (over_) return;
  if (plan_.stream) {
    begin_stream();
    send(format_->stream_text(choice, text, tokens));
    return;
  }
  choices_[choice].text += text;
  choices_[choice].tokens.insert(choices_[choice].tokens.end(), tokens.begin(), tokens.end());
}

void GenerationRun::on_finished(size_t choice, serving::FinishReason reason,
                                std::optional<std::string> stop_string, const serving::Usage& usage) {
  generations_[choice].reset();
  if (over_) return;
  if (reason == serving::FinishReason::cancelled) {
    return on_error(from_error({ErrorCode::cancelled, "the generation was cancelled", {}}));
  }
  choices_[choice].finish_reason = reason;
  choices_[choice].stop_string = std::move(stop_string);
  choices_[choice].usage = usage;
  if (plan_.stream) {
    begin_stream();
    send(format_->stream_choice_end(choice, choices_[choice]));
  }
  if (--running_ == 0) complete();
}

void GenerationRun::complete() {
  over_ = true;
  if (!plan_.stream) return exchange_->respond(format_->whole(choices_, total_usage()));
  send(format_->stream_end(total_usage()));
  exchange_->finish();
}

void GenerationRun::on_error(const ApiError& error) {
  if (over_) return;
  over_ = true;
  if (streaming_) {
    send(format_->stream_error(error));
    exchange_->finish();
  } else {
    exchange_->respond(format_->error(error));
  }
  cancel_all();
}

// A generation that has ended already is cancelled in vain, which the Service ignores.
void GenerationRun::cancel_all() {
  for (auto& generation : generations_) {
    if (auto id = std::exchange(generation, std::nullopt)) service_.cancel(*id);
  }
}

serving::Usage GenerationRun::total_usage() const {
  serving::Usage total;
  for (size_t i = 0; i < choices_.size(); ++i) {
    total.completion_tokens += choices_[i].usage.completion_tokens;
    if (i % plan_.choices_per_prompt != 0) continue;
    total.prompt_tokens += choices_[i].usage.prompt_tokens;
    total.cached_tokens += choices_[i].usage.cached_tokens;
  }
  return total;
}

}  // namespace

void run_generation(serving::Service& service, GenerationPlan plan, std::unique_ptr<AnswerFormat> format,
                    std::shared_ptr<Exchange> exchange) {
  std::make_shared<GenerationRun>(service, std::move(plan), std::move(format), std::move(exchange))->start();
}

}  // namespace shoal::api
