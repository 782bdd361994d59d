// A Service for the tests of this room, without models: what it does depends on the model's name.
//   "echo"    says the words of "one two three" (as many as max_tokens), then stops
//   "endless" says a word whenever the loop is free, until cancelled
//   "silent"  never says anything
//   "broken"  fails after the first word
//   others    fail at once: see fail_with
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <map>
#include <string>
#include <vector>

#include "serving/service.h"

namespace shoal::api {

class FakeService final : public serving::Service {
 public:
  explicit FakeService(boost::asio::io_context& io) : io_(io) {}

  serving::GenerationId generate(serving::GenerateRequest request,
                                 std::shared_ptr<serving::GenerationListener> listener) override {
    const auto id = next_id_++;
    running_.emplace(id, listener);
    requests.push_back(request);
    boost::asio::post(io_, [this, id, request = std::move(request), listener = std::move(listener)] {
      step(id, request, listener, 0);
    });
    return id;
  }

  void cancel(serving::GenerationId generation) override {
    if (running_.erase(generation) > 0) ++cancelled;
  }

  std::vector<serving::ModelEntry> models() const override {
    return {{"echo", "llama", 1000, 1700000000, true}, {"org/repo:Q4_K_M", "qwen3", 2000, 1700000001, false}};
  }
  Json cluster() const override {
    return {{"self", "aa"},
            {"nodes", JsonArray()},
            {"instances", JsonArray{JsonObject{{"id", "i1"}, {"model", "echo"}}}}};
  }
  void place(const serving::PlaceOptions& options, serving::JsonCallback done) override {
    placed.push_back(options);
    boost::asio::post(io_, [done = std::move(done), options] {
      if (options.model == "huge") return done(fail(ErrorCode::out_of_memory, "'huge' needs 9 GiB more"));
      done(Json{{"id", "i1"}, {"model", options.model}});
    });
  }
  void stop_instance(const std::string& instance, serving::JsonCallback done) override {
    boost::asio::post(io_, [done = std::move(done), instance] {
      if (instance != "i1")
        return done(fail(ErrorCode::not_found, "there is no instance '" + instance + "'"));
      done(Json{{"id", "i1"}, {"state", "stopped"}});
    });
  }
  std::string metrics() const override { return "shoal_fake 1\n"; }

  size_t running() const { return running_.size(); }

  std::vector<serving::GenerateRequest> requests;
  std::vector<serving::PlaceOptions> placed;
  size_t cancelled = 0;
  std::map<std::string, Error> fail_with;  // by model; others are not_found
  std::string endless_word = "word ";

 private:
  void step(serving::GenerationId id, const serving::GenerateRequest& request,
            const std::shared_ptr<serving::GenerationListener>& listener, uint32_t said) {
    static const std::vector<std::string> kWords = {"one ", "two ", "three"};
    if (!running_.contains(id) || request.model == "silent") return;
    const bool endless = request.model == "endless";
    if (!endless && request.model != "echo" && request.model != "broken")
      return end_with_error(id, request, *listener);
    const uint32_t limit = request.max_tokens.value_or(~0U);
    if (request.model == "broken" && said == 1) {
      running_.erase(id);
      return listener->on_error({ErrorCode::unavailable, "worker of node 'bob' was lost", {}});
    }
    if (said == limit || (!endless && said == kWords.size())) {
      running_.erase(id);
      const auto reason = said == limit ? serving::FinishReason::length : serving::FinishReason::stop;
      return listener->on_finished(reason, std::nullopt, {7, 2, said});
    }
    const std::string& word = endless ? endless_word : kWords[said];
    std::vector<serving::TokenText> tokens;
    if (request.logprobs)
      tokens.push_back({word, {static_cast<int32_t>(said), -0.5F, {{9, -1.5F}}}, {"\xC3"}});
    listener->on_text(word, tokens);
    boost::asio::post(io_, [this, id, request, listener, said] { step(id, request, listener, said + 1); });
  }

  void end_with_error(serving::GenerationId id, const serving::GenerateRequest& request,
                      serving::GenerationListener& listener) {
    running_.erase(id);
    const auto found = fail_with.find(request.model);
    listener.on_error(
        found != fail_with.end()
            ? found->second
            : Error{ErrorCode::not_found, "The model '" + request.model + "' does not exist", {}});
  }

  boost::asio::io_context& io_;
  serving::GenerationId next_id_ = 1;
  std::map<serving::GenerationId, std::shared_ptr<serving::GenerationListener>> running_;
};

}  // namespace shoal::api
