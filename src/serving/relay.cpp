#include "serving/relay.h"

#include <fmt/format.h>
#include <utility>
#include <vector>

#include "base/system.h"
#include "serving/gateway.h"

namespace shoal::serving {

// The listener of a generation that another node asked for.
class Relay::Speaker final : public GenerationListener {
 public:
  Speaker(Relay& relay, Key key) : relay_(relay), alive_(relay.alive_), key_(std::move(key)) {}

  void on_text(std::string_view text, const std::vector<TokenText>& tokens) override {
    say({.id = key_.second, .index = next_index_, .text = std::string(text), .tokens = tokens, .end = {}});
  }
  void on_finished(FinishReason reason, std::optional<std::string> stop, const Usage& usage) override {
    say({.id = key_.second,
         .index = next_index_,
         .text = {},
         .tokens = {},
         .end = Finished{.reason = reason, .stop = std::move(stop), .usage = usage}});
    if (alive_.lock()) relay_.ended(key_);
  }
  void on_error(const Error& error) override {
    say({.id = key_.second, .index = next_index_, .text = {}, .tokens = {}, .end = error});
    if (alive_.lock()) relay_.ended(key_);
  }

 private:
  void say(const HeardMessage& message) {
    next_index_ += 1;
    if (alive_.lock()) relay_.send_(key_.first, kHeardTopic, message.encode());
  }

  Relay& relay_;
  std::weak_ptr<bool> alive_;
  Key key_;
  uint32_t next_index_ = 1;  // 0 said that it was taken
};

Relay::Relay(Local local, NodeName node_name, const Clock& clock, Send send)
    : local_(std::move(local)),
      node_name_(std::move(node_name)),
      clock_(clock),
      send_(std::move(send)),
      next_id_(random_u64() | (uint64_t{1} << 63)) {}

Relay::~Relay() = default;

GenerationId Relay::ask(const cluster::NodeId& holder, GenerateRequest request,
                        std::shared_ptr<GenerationListener> listener) {
  const uint64_t id = next_id_++ | (uint64_t{1} << 63);
  asked_[id] = {.holder = holder, .listener = std::move(listener), .asked = clock_.now(), .next_index = 0};
  send_(holder, kAskTopic, AskMessage{.id = id, .request = std::move(request)}.encode());
  return id;
}

void Relay::cancel(GenerationId generation) {
  const auto found = asked_.find(generation);
  if (found == asked_.end()) return;
  const cluster::NodeId holder = found->second.holder;
  asked_.erase(found);
  send_(holder, kHangUpTopic, HangUpMessage{.id = generation}.encode());
}

void Relay::place(const cluster::NodeId& holder, const PlaceOptions& options, JsonCallback done) {
  const uint64_t id = next_id_++;
  placing_[id] = {.holder = holder, .done = std::move(done)};
  send_(holder, kPlaceTopic, PlaceMessage{.id = id, .options = options}.encode());
}

void Relay::on_heard(const cluster::NodeId& sender, HeardMessage message) {
  const auto found = asked_.find(message.id);
  if (found == asked_.end() || found->second.holder != sender) return;
  Asked& asked = found->second;
  if (message.index < asked.next_index) return;
  if (message.index > asked.next_index) {
    send_(sender, kHangUpTopic, HangUpMessage{.id = message.id}.encode());
    return fail(message.id,
                {ErrorCode::unavailable,
                 fmt::format("a part of the answer was lost on the way from node '{}'", node_name_(sender)),
                 "try again"});
  }
  asked.next_index += 1;
  const std::shared_ptr<GenerationListener> listener = asked.listener;  // it may cancel
  if (!message.text.empty() || !message.tokens.empty()) listener->on_text(message.text, message.tokens);
  if (!asked_.contains(message.id)) return;
  if (const auto* error = std::get_if<Error>(&message.end)) return fail(message.id, *error);
  if (auto* finished = std::get_if<Finished>(&message.end)) {
    asked_.erase(message.id);
    listener->on_finished(finished->reason, std::move(finished->stop), finished->usage);
  }
}

void Relay::fail(uint64_t id, const Error& error) {
  auto asked = asked_.extract(id);
  if (!asked.empty()) asked.mapped().listener->on_error(error);
}

void Relay::on_placed(const cluster::NodeId& sender, PlacedMessage message) {
  const auto found = placing_.find(message.id);
  if (found == placing_.end() || found->second.holder != sender) return;
  const JsonCallback done = std::move(found->second.done);
  placing_.erase(found);
  done(std::move(message.outcome));
}

void Relay::on_ask(const cluster::NodeId& sender, AskMessage message) {
  const Key key{sender, message.id};
  if (serving_.contains(key) || served_.contains(key)) return;
  send_(sender, kHeardTopic,
        HeardMessage{.id = message.id, .index = 0, .text = {}, .tokens = {}, .end = {}}.encode());
  serving_[key] = local_.generate(std::move(message.request), std::make_shared<Speaker>(*this, key));
}

void Relay::ended(const Key& key) {
  served_.add(key);
  serving_.erase(key);
}

void Relay::on_hang_up(const cluster::NodeId& sender, const HangUpMessage& message) {
  const Key key{sender, message.id};
  const auto found = serving_.find(key);
  if (found == serving_.end()) return;
  const GenerationId generation = found->second;
  ended(key);
  local_.cancel(generation);
}

void Relay::on_place(const cluster::NodeId& sender, const PlaceMessage& message) {
  const Key key{sender, message.id};
  if (placed_.contains(key)) return;
  placed_.add(key);
  local_.place(message.options, [this, alive = std::weak_ptr(alive_), key](Result<Json> outcome) {
    if (!alive.lock()) return;
    send_(key.first, kPlacedTopic, PlacedMessage{.id = key.second, .outcome = std::move(outcome)}.encode());
  });
}

void Relay::node_left(const cluster::NodeId& node) {
  const Error error{
      ErrorCode::unavailable,
      fmt::format("node '{}', which was asked for the model, left the cluster", node_name_(node)),
      "try again"};
  std::vector<uint64_t> lost;
  for (const auto& [id, asked] : asked_)
    if (asked.holder == node) lost.push_back(id);
  for (const uint64_t id : lost) fail(id, error);
  std::vector<JsonCallback> placing;
  for (const auto& [id, one] : placing_)
    if (one.holder == node) placing.push_back(one.done);
  std::erase_if(placing_, [&](const auto& entry) { return entry.second.holder == node; });
  for (const JsonCallback& done : placing) done(std::unexpected(error));
  std::vector<Key> orphans;
  for (const auto& [key, generation] : serving_)
    if (key.first == node) orphans.push_back(key);
  for (const Key& key : orphans) on_hang_up(node, {.id = key.second});
}

void Relay::fail_all(const Error& why) {
  for (const auto& [id, asked] : std::exchange(asked_, {})) asked.listener->on_error(why);
  for (const auto& [id, placing] : std::exchange(placing_, {})) placing.done(std::unexpected(why));
}

void Relay::tick(TimePoint now) {
  std::vector<uint64_t> late;
  for (const auto& [id, asked] : asked_)
    if (asked.next_index == 0 && now - asked.asked >= Gateway::kAcceptTimeout) late.push_back(id);
  for (const uint64_t id : late) {
    const cluster::NodeId holder = asked_.at(id).holder;
    send_(holder, kHangUpTopic, HangUpMessage{.id = id}.encode());
    fail(id, {ErrorCode::unavailable,
              fmt::format("node '{}', which holds the model, did not answer within {} s", node_name_(holder),
                          std::chrono::duration_cast<seconds>(Gateway::kAcceptTimeout).count()),
              "try again"});
  }
}

}  // namespace shoal::serving
