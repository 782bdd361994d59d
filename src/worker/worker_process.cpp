// The worker's main. Threads: this one listens to the node (and, on rank 0, runs the steps it brings); a
// loader while loading; on the other ranks one that runs the steps of the stage before or of its leader; on
// rank 0 of several stages one that hands results back; one on the Link to the next stage and one on the
// node's socket that notice an end. Whoever meets an error reports it and ends the process, so no thread ever
// waits for another to finish.
#include <atomic>
#include <cmath>
#include <fmt/format.h>
#include <future>
#include <thread>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"
#include "runtime/link_group.h"
#include "runtime/stage_frame.h"
#include "worker/node_channel.h"
#include "worker/stage_loader.h"
#include "worker/worker_client.h"
#include "worker/world_links.h"

namespace shoal::worker {
namespace {

constexpr uint8_t kUnusedChannel = 2;  // nothing is sent on it; receiving from it is how an end is noticed
constexpr Duration kGoodbyeTimeout = milliseconds(500);
constexpr float kProgressStep = 0.01F;

class Worker {
 public:
  explicit Worker(int socket) : node_(FileDescriptor(socket), link::LinkOptions::default_spin()) {}

  // Ends the process.
  [[noreturn]] void run();

 private:
  [[noreturn]] void leave(int exit_code) { ::_exit(exit_code); }
  [[noreturn]] void leave_failed(const Error& error);
  [[noreturn]] void leave_with_goodbye();
  template <class T>
  T must(Result<T> result);
  void must(const Result<>& result);
  // The next frame of the channel. Ends the process when there will be none.
  link::Frame receive(link::Link& link, uint8_t channel);

  NodeMessage next_message();
  void load();
  void connect();

  [[noreturn]] void serve_node();
  void run_step_of_node(const runtime::Step& step);
  [[noreturn]] void serve_previous_stage();
  [[noreturn]] void serve_leader();
  [[noreturn]] void hand_back_results();
  bool leads() const { return load_.shard.rank == 0; }
  runtime::StageOutput run_on_stage(const runtime::Step& step, std::span<const float> hidden,
                                    ByteView step_bytes);
  void finish_step(const runtime::Step& step, runtime::StageOutput output,
                   std::vector<float> stage_milliseconds, ByteView step_bytes);
  bool of_this_epoch(const runtime::Step& step) const;

  NodeChannel node_;
  std::mutex leave_mutex_;  // the first error is the one that is reported
  LoadRequest load_;
  runtime::LinkGroup group_;  // outlives the engine in loaded_
  std::unique_ptr<LoadedStage> loaded_;
  WorldLinks links_;
};

void Worker::leave_failed(const Error& error) {
  leave_mutex_.lock();  // never unlocked
  Error named = error;
  if (load_.rank_count > 1) named.message = fmt::format("rank {}: {}", load_.rank, error.message);
  log_error("worker", "{}", named.text());
  node_.send(Failed{named});
  leave(1);
}

void Worker::leave_with_goodbye() {
  leave_mutex_.lock();
  TimePoint deadline = std::chrono::steady_clock::now() + kGoodbyeTimeout;
  for (link::Link* link : links_.all()) {
    if (auto closed = link->close(deadline); !closed) log_debug("worker", "{}", closed.error().text());
  }
  leave(0);
}

template <class T>
T Worker::must(Result<T> result) {
  if (!result) leave_failed(result.error());
  return *std::move(result);
}

void Worker::must(const Result<>& result) {
  if (!result) leave_failed(result.error());
}

link::Frame Worker::receive(link::Link& link, uint8_t channel) {
  auto received = link.receive(channel);
  if (received) {
    std::optional<link::Frame> frame = *std::move(received);
    if (frame) return *std::move(frame);
    leave_failed({ErrorCode::internal, "link: nothing came", ""});
  }
  Error error = std::move(received).error();
  // After a neighbour's goodbye our own node will tell us to leave too; if it does not, something is wrong.
  if (error.code == ErrorCode::cancelled) {
    std::this_thread::sleep_for(milliseconds(limits::kLeaseMs));
    error.code = ErrorCode::unavailable;
  }
  leave_failed(error);
}

NodeMessage Worker::next_message() {
  auto message = must(node_.receive());
  if (!message) leave(0);
  if (std::holds_alternative<ShutDown>(*message)) leave_with_goodbye();
  return std::move(*message);
}

void Worker::run() {
  std::thread([this] {
    node_.wait_for_end();
    leave(0);
  }).detach();

  NodeMessage first = next_message();
  if (!std::holds_alternative<LoadRequest>(first)) {
    leave_failed({ErrorCode::malformed, "the first message from the node is no load request", ""});
  }
  load_ = std::get<LoadRequest>(std::move(first));
  set_log_prefix(fmt::format("worker {}", load_.rank));

  std::promise<void> loaded;
  std::thread([this, &loaded] {
    load();
    loaded.set_value();
  }).detach();
  if (load_.rank_count > 1) connect();
  loaded.get_future().wait();

  node_.send(Ready{});
  if (load_.rank_count == 1) serve_node();
  // A lost rank of our stage shows in the next step, and its node tells ours: a thread that waits on its Link
  // would only be in the way of the sums.
  if (links_.next) std::thread([this] { receive(*links_.next, kUnusedChannel); }).detach();
  if (!leads()) {
    std::thread([this] { serve_leader(); }).detach();
  } else if (links_.previous) {
    std::thread([this] {
      if (load_.rank == 0) hand_back_results();
      serve_previous_stage();
    }).detach();
  }
  serve_node();
}

void Worker::load() {
  std::atomic<float> reported = -1;
  auto progress = [&](float fraction) {
    float last = reported.load();
    if (fraction < last + kProgressStep && fraction < 1) return;
    if (reported.compare_exchange_strong(last, fraction))
      node_.send(Progress{std::clamp(fraction, 0.F, 1.F)});
  };
  loaded_ = must(load_stage(load_, group_, progress));
  node_.send(Loaded{loaded_->stage.engine().memory()});
}

void Worker::connect() {
  const std::unique_ptr<LinkBuilder> builder = must(LinkBuilder::listen(load_));
  if (builder->port() != 0) node_.send(Listening{builder->port()});
  while (!builder->has_called_all()) {
    NodeMessage message = next_message();
    auto* request = std::get_if<ConnectRequest>(&message);
    if (!request) leave_failed({ErrorCode::malformed, "the node sent steps before all links were made", ""});
    must(builder->call(*request));
  }
  links_ = must(builder->finish());
  std::vector<link::Link*> group;
  for (const auto& link : links_.group) group.push_back(link.get());
  if (group.size() > 1) group_.join(std::move(group));
}  // nobody else is to call: stops listening

// Rank 0 runs what the node sends; to the others it has only one more thing to say.
void Worker::serve_node() {
  while (true) {
    NodeMessage message = next_message();
    auto* step = std::get_if<runtime::Step>(&message);
    if (!step || load_.rank != 0) {
      leave_failed({ErrorCode::malformed, "a message from the node that this rank does not expect", ""});
    }
    run_step_of_node(*step);
  }
}

bool Worker::of_this_epoch(const runtime::Step& step) const {
  if (step.epoch == load_.epoch) return true;
  log_info("worker", "dropped step {} of epoch {}, this is {}", step.id, step.epoch, load_.epoch);
  return false;
}

void Worker::run_step_of_node(const runtime::Step& step) {
  if (!of_this_epoch(step)) return;
  ByteWriter writer;
  if (load_.rank_count > 1) step.encode(writer);
  finish_step(step, run_on_stage(step, {}, writer.bytes()), {}, writer.bytes());
}

void Worker::serve_previous_stage() {
  while (true) {
    link::Frame frame = receive(*links_.previous, runtime::kStepChannel);
    runtime::StageFrame incoming = must(runtime::read_stage_frame(frame));
    if (!of_this_epoch(incoming.step)) continue;
    runtime::StageOutput output = run_on_stage(incoming.step, incoming.hidden, incoming.step_bytes);
    finish_step(incoming.step, std::move(output), std::move(incoming.stage_milliseconds),
                incoming.step_bytes);
  }
}

// What it makes of a step is what its leader makes of it.
void Worker::serve_leader() {
  while (true) {
    link::Frame frame = receive(*links_.group.front(), runtime::kStepChannel);
    runtime::StageFrame incoming = must(runtime::read_stage_frame(frame));
    if (of_this_epoch(incoming.step)) must(loaded_->run(incoming.step, incoming.hidden));
  }
}

// As the leader: the others of the stage run it too.
runtime::StageOutput Worker::run_on_stage(const runtime::Step& step, std::span<const float> hidden,
                                          ByteView step_bytes) {
  for (const auto& link : links_.group) {
    if (!link) continue;
    auto frame = must(runtime::make_stage_frame(*link, step.id, step_bytes, {}, hidden));
    must(link->send(std::move(frame)));
  }
  return must(loaded_->run(step, hidden));
}

void Worker::finish_step(const runtime::Step& step, runtime::StageOutput output,
                         std::vector<float> stage_milliseconds, ByteView step_bytes) {
  stage_milliseconds.push_back(output.milliseconds);
  if (!load_.stage.heads) {
    auto frame = must(runtime::make_stage_frame(*links_.next, step.id, step_bytes, stage_milliseconds,
                                                output.hidden, load_.wire));
    return must(links_.next->send(std::move(frame)));
  }
  runtime::StepResult result{step.id, step.epoch, std::move(output.tokens), std::move(stage_milliseconds)};
  if (load_.rank == 0) return node_.send(std::move(result));
  auto frame = must(runtime::make_result_frame(*links_.next, result));
  must(links_.next->send(std::move(frame)));
}

void Worker::hand_back_results() {
  while (true) {
    link::Frame frame = receive(*links_.previous, runtime::kResultChannel);
    node_.send(must(runtime::read_result_frame(frame)));
  }
}

}  // namespace

int run_worker(int socket_fd) {
  set_process_name("shoal-worker");
  // Lives until the process ends: threads that are still at work may look at it to the last.
  auto* worker = new Worker(socket_fd);
  worker->run();
}

}  // namespace shoal::worker
