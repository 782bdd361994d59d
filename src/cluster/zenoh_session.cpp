#include "cluster/zenoh_session.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "bridge/bus.h"
#include "cluster/local_addresses.h"
#include "cluster/zenoh_config.h"

namespace shoal::cluster {
namespace {

constexpr uint32_t kStateTimeoutMs = 1000;
constexpr auto kFarewell = milliseconds(500);  // for what is still to be sent when the session closes
constexpr auto kLookAtAddresses = seconds(2);
constexpr size_t kMaxQueuedBytes = 256 * limits::kMiB;  // to receivers that do not keep up

shoal_view view(std::string_view text) {
  return {text.data(), text.size()};
}
shoal_view view(ByteView bytes) {
  return view(as_text(bytes));
}
std::string_view text(shoal_view view) {
  return {view.data, view.size};
}
ByteView bytes(shoal_view view) {
  return as_bytes(text(view));
}

// By reference: the call that sets `error` is an argument beside it.
Result<> check(shoal_status status, char*& error) {
  if (status == SHOAL_OK) return {};
  std::string message = error ? error : "unknown";
  shoal_string_free(error);
  ErrorCode code = status == SHOAL_NETWORK ? ErrorCode::io : ErrorCode::internal;
  return fail(code, fmt::format("the cluster's bus: {}", message));
}

// The parts of `key` after "<prefix>/<kind>/": at most `count`, the last one with whatever follows.
std::vector<std::string_view> parts(std::string_view key, size_t skip, size_t count) {
  std::vector<std::string_view> out;
  if (key.size() <= skip) return out;
  key.remove_prefix(skip);
  while (out.size() + 1 < count) {
    size_t slash = key.find('/');
    if (slash == key.npos) break;
    out.push_back(key.substr(0, slash));
    key.remove_prefix(slash + 1);
  }
  out.push_back(key);
  return out;
}

struct Put {
  std::string key;
  Bytes payload;
};
struct PublishValue {
  std::string name;
  FactValue value;
};
struct AskState {
  Living who;
};
struct AnswerState {
  shoal_bus_query* query;
};
using Command = std::variant<Put, PublishValue, AskState, AnswerState>;

size_t queued_bytes(const Command& command) {
  const Put* put = std::get_if<Put>(&command);
  return put ? put->payload.size() : 0;
}

class Session final : public ZenohSession {
 public:
  Session(std::string cluster, Living self, std::shared_ptr<ZenohListener> listener)
      : cluster_(std::move(cluster)),
        prefix_(key_prefix(cluster_)),
        self_(std::move(self)),
        listener_(std::move(listener)) {}

  Result<> start(const std::string& configuration);
  ~Session() override;

  void publish(std::string name, FactValue value) override {
    enqueue(PublishValue{std::move(name), std::move(value)});
  }
  void send(const Living& receiver, Bytes payload) override {
    std::string key =
        fmt::format("{}/to/{}/{}/{}/{}", prefix_, receiver.node, receiver.life, self_.node, self_.life);
    enqueue(Put{std::move(key), std::move(payload)});
  }
  void ask_state(const Living& who, Duration delay) override { enqueue(AskState{who}, delay); }

 private:
  using Method = void (Session::*)(std::string_view key, shoal_bus_kind kind, ByteView payload);
  struct Asking {  // one state query on its way
    std::shared_ptr<ZenohListener> listener;
    Living who;
  };

  template <Method method>
  static void sample(void* context, shoal_bus_kind kind, shoal_view key, shoal_view payload) {
    (static_cast<Session*>(context)->*method)(text(key), kind, bytes(payload));
  }
  size_t after(std::string_view kind) const { return prefix_.size() + kind.size() + 2; }
  void token_changed(std::string_view key, shoal_bus_kind kind, ByteView payload);
  void fact_put(std::string_view key, shoal_bus_kind kind, ByteView payload);
  void message_put(std::string_view key, shoal_bus_kind kind, ByteView payload);

  Result<> declare();
  void enqueue(Command command, Duration delay = Duration(0));
  void run();  // the sending thread
  void look_at_addresses();
  void perform(Put& put);
  void perform(PublishValue& publish);
  void perform(AskState& ask);
  void perform(AnswerState& answer);
  Bytes state() const;

  const std::string cluster_, prefix_;
  const Living self_;
  const std::shared_ptr<ZenohListener> listener_;
  shoal_bus* bus_ = nullptr;
  std::vector<shoal_bus_declaration*> declarations_;  // the token last

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Command> queue_;
  std::multimap<TimePoint, Command> delayed_;
  size_t queued_bytes_ = 0;
  std::optional<TimePoint> closing_;  // what is not sent by then is dropped

  std::map<std::string, FactValue> facts_;  // of the sending thread alone
  std::vector<std::string> addresses_ = local_addresses();
  std::thread thread_;
};

Result<> Session::start(const std::string& configuration) {
  char* error = nullptr;
  SHOAL_TRY_VOID(check(shoal_bus_open(view(configuration), &bus_, &error), error));
  thread_ = std::thread([this] { run(); });
  return declare();
}

Session::~Session() {
  {
    std::lock_guard lock(mutex_);
    closing_ = std::chrono::steady_clock::now() + kFarewell;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
  // The token first: the others see us leave before anything else of ours ends.
  while (!declarations_.empty()) {
    shoal_bus_undeclare(declarations_.back());
    declarations_.pop_back();
  }
  shoal_bus_close(bus_);
  for (Command& command : queue_) {
    if (auto* answer = std::get_if<AnswerState>(&command)) shoal_bus_query_free(answer->query);
  }
}

Result<> Session::declare() {
  char* error = nullptr;
  shoal_bus_declaration* declaration = nullptr;
  auto keep = [&](shoal_status status) -> Result<> {
    SHOAL_TRY_VOID(check(status, error));
    declarations_.push_back(declaration);
    return {};
  };
  auto key = [&](std::string_view kind, std::string_view rest) {
    return fmt::format("{}/{}/{}", prefix_, kind, rest);
  };
  std::string own = fmt::format("{}/{}", self_.node, self_.life);
  auto answer = [](void* context, shoal_bus_query* query, shoal_view, shoal_view) {
    static_cast<Session*>(context)->enqueue(AnswerState{query});
  };
  SHOAL_TRY_VOID(keep(
      shoal_bus_queryable(bus_, view(key("state", own)), 1, answer, this, nullptr, &declaration, &error)));
  SHOAL_TRY_VOID(keep(shoal_bus_subscribe(bus_, view(key("fact", "**")), sample<&Session::fact_put>, this,
                                          nullptr, &declaration, &error)));
  SHOAL_TRY_VOID(keep(shoal_bus_subscribe(bus_, view(key("to", own + "/**")), sample<&Session::message_put>,
                                          this, nullptr, &declaration, &error)));
  SHOAL_TRY_VOID(keep(shoal_bus_watch(bus_, view(key("alive", "**")), 1, sample<&Session::token_changed>,
                                      this, nullptr, &declaration, &error)));
  return keep(shoal_bus_token(bus_, view(key("alive", own)), &declaration, &error));
}

void Session::token_changed(std::string_view key, shoal_bus_kind kind, ByteView) {
  auto part = parts(key, after("alive"), 2);
  if (part.size() == 2)
    listener_->on_token({std::string(part[0]), std::string(part[1])}, kind == SHOAL_BUS_PUT);
}

void Session::fact_put(std::string_view key, shoal_bus_kind kind, ByteView payload) {
  auto part = parts(key, after("fact"), 3);
  if (part.size() != 3 || kind != SHOAL_BUS_PUT || part[0] == self_.node) return;
  listener_->on_fact({std::string(part[0]), std::string(part[1])}, part[2], payload);
}

void Session::message_put(std::string_view key, shoal_bus_kind kind, ByteView payload) {
  auto part = parts(key, after("to"), 4);
  if (part.size() == 4 && kind == SHOAL_BUS_PUT)
    listener_->on_message({std::string(part[2]), std::string(part[3])}, payload);
}

void Session::enqueue(Command command, Duration delay) {
  {
    std::lock_guard lock(mutex_);
    size_t size = queued_bytes(command);
    if (queued_bytes_ + size > kMaxQueuedBytes) {
      log_warning("cluster", "dropped a message of {} bytes: the receivers do not keep up", size);
      return;
    }
    queued_bytes_ += size;
    if (delay > Duration(0)) {
      delayed_.emplace(std::chrono::steady_clock::now() + delay, std::move(command));
    } else {
      queue_.push_back(std::move(command));
    }
  }
  changed_.notify_one();
}

void Session::run() {
  std::unique_lock lock(mutex_);
  TimePoint look_at = std::chrono::steady_clock::now();  // the last time we did
  while (true) {
    TimePoint now = std::chrono::steady_clock::now();
    if (now - look_at >= kLookAtAddresses) {
      look_at = now;
      lock.unlock();
      look_at_addresses();
      lock.lock();
    }
    while (!delayed_.empty() && delayed_.begin()->first <= now) {
      queue_.push_back(std::move(delayed_.begin()->second));
      delayed_.erase(delayed_.begin());
    }
    if (closing_ && (queue_.empty() || now >= *closing_)) return;
    if (queue_.empty()) {
      TimePoint until = look_at + kLookAtAddresses;
      if (!delayed_.empty()) until = std::min(until, delayed_.begin()->first);
      changed_.wait_until(lock, until);
      continue;
    }
    Command command = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= queued_bytes(command);
    lock.unlock();
    std::visit([this](auto& one) { perform(one); }, command);
    lock.lock();
  }
}

void Session::look_at_addresses() {
  std::vector<std::string> now = local_addresses();
  auto is_new = [&](const std::string& address) {
    return std::find(addresses_.begin(), addresses_.end(), address) == addresses_.end();
  };
  bool grown = std::any_of(now.begin(), now.end(), is_new);
  addresses_ = std::move(now);
  if (grown) listener_->on_new_address();
}

void Session::perform(Put& put) {
  char* error = nullptr;
  auto done = check(shoal_bus_put(bus_, view(put.key), view(put.payload), SHOAL_BUS_EXPRESS, &error), error);
  if (!done) log_warning("cluster", "{}", done.error().message);
}

void Session::perform(PublishValue& publish) {
  std::string key = fmt::format("{}/fact/{}/{}/{}", prefix_, self_.node, self_.life, publish.name);
  Put put{std::move(key), publish.value.encode()};
  if (publish.value.present) {
    facts_.insert_or_assign(publish.name, std::move(publish.value));
  } else {
    facts_.erase(publish.name);
  }
  perform(put);
}

void Session::perform(AskState& ask) {
  std::string key = fmt::format("{}/state/{}/{}", prefix_, ask.who.node, ask.who.life);
  auto* asking = new Asking{listener_, ask.who};  // freed by the drop, which always runs
  auto reply = [](void* context, shoal_bus_kind kind, shoal_view, shoal_view payload) {
    auto* one = static_cast<Asking*>(context);
    if (kind == SHOAL_BUS_PUT) one->listener->on_state(one->who, bytes(payload));
  };
  auto drop = [](void* context) {
    std::unique_ptr<Asking> one(static_cast<Asking*>(context));
    one->listener->on_state_asked(one->who);
  };
  char* error = nullptr;
  auto done =
      check(shoal_bus_get(bus_, view(key), {}, kStateTimeoutMs, 1, reply, asking, drop, &error), error);
  if (!done) log_warning("cluster", "{}", done.error().message);
}

void Session::perform(AnswerState& answer) {
  std::string key = fmt::format("{}/state/{}/{}", prefix_, self_.node, self_.life);
  Bytes payload = state();
  char* error = nullptr;
  auto done = check(shoal_bus_reply(answer.query, view(key), view(payload), &error), error);
  if (!done) log_warning("cluster", "{}", done.error().message);
  shoal_bus_query_free(answer.query);
}

Bytes Session::state() const {
  ByteWriter writer;
  writer.write_text(cluster_);
  writer.write(static_cast<uint32_t>(facts_.size()));
  for (const auto& [name, value] : facts_) {
    writer.write_text(name);
    writer.write_text(as_text(value.encode()));
  }
  return writer.take();
}

}  // namespace

Bytes FactValue::encode() const {
  ByteWriter writer;
  writer.write(sequence);
  writer.write(static_cast<uint8_t>(present));
  writer.append(as_bytes(value));
  return writer.take();
}

Result<FactValue> FactValue::decode(ByteView payload) {
  ByteReader reader(payload);
  FactValue fact;
  SHOAL_TRY(fact.sequence, reader.read<uint64_t>());
  SHOAL_TRY(uint8_t present, reader.read<uint8_t>());
  fact.present = present != 0;
  SHOAL_TRY(ByteView value, reader.take(reader.remaining()));
  fact.value = as_text(value);
  return fact;
}

Result<std::unique_ptr<ZenohSession>> ZenohSession::open(const std::string& configuration,
                                                         std::string cluster, const Living& self,
                                                         std::shared_ptr<ZenohListener> listener) {
  auto session = std::make_unique<Session>(std::move(cluster), self, std::move(listener));
  SHOAL_TRY_VOID(session->start(configuration));
  return session;
}

}  // namespace shoal::cluster
