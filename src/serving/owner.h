// The owner's side of an instance: takes requests from gateways, drives the scheduler against the worker of
// stage 0 and sends tokens back. One per instance and epoch, on the node of stage 0. Event-loop thread only.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/clock.h"
#include "cluster/facts.h"
#include "scheduler/scheduler.h"
#include "serving/messages.h"
#include "serving/recent_keys.h"

namespace shoal::serving {

using Send =
    std::function<void(const cluster::NodeId& receiver, std::string_view topic, const Bytes& payload)>;

// What the owner has to know of its model; the instance's fact says the rest.
struct OwnedModel {
  uint32_t vocabulary_size = 0;    // bounds the token ids that may reach the worker
  uint32_t long_after_tokens = 0;  // see ModelCard
};

class InstanceOwner {
 public:
  struct Ports {
    std::function<void(const runtime::Step&)> submit_step;  // to the worker of stage 0
    Send send;
  };
  struct Figures {                           // of the epoch so far
    double tokens_per_second = 0;            // of one sequence in decode, recent; 0 when none was seen
    std::vector<double> stage_milliseconds;  // compute of a step, recent
    std::vector<double> token_milliseconds;  // of steps with one row, since they were last taken
  };

  InstanceOwner(const cluster::InstanceFact& instance, const OwnedModel& model, const Clock& clock,
                Ports ports);

  void submit(const cluster::NodeId& gateway, SubmitMessage message);
  void cancel(const cluster::NodeId& gateway, RequestId request);
  void gateway_left(const cluster::NodeId& gateway);
  // An Error means that worker and scheduler disagree: the world must be given up.
  Result<> on_step_result(const runtime::StepResult& result);
  // Ends every request with `why`; the object takes no more.
  void fail_all(const Error& why);

  const std::string& instance() const { return instance_.id; }
  uint32_t epoch() const { return instance_.epoch; }
  scheduler::Metrics metrics() const { return scheduler_.metrics(); }
  const Figures& figures() const { return figures_; }
  // What each stage took for one row, since the last call; empty when there were no such steps.
  std::vector<double> take_token_milliseconds() { return std::exchange(figures_.token_milliseconds, {}); }

 private:
  using Key = std::pair<cluster::NodeId, RequestId>;
  struct Running {
    Key key;
    uint32_t answer_tokens = 0;
    TimePoint last_token{};
  };

  void refuse(const cluster::NodeId& gateway, uint32_t epoch, RequestId request, const Error& error);
  void forget(scheduler::SequenceId id);
  void forward(const scheduler::Event& event);
  void pump();
  void learn(const runtime::StepResult& result);

  cluster::InstanceFact instance_;
  OwnedModel model_;
  const Clock& clock_;
  Ports ports_;
  scheduler::Scheduler scheduler_;
  std::map<Key, scheduler::SequenceId> by_key_;
  RecentKeys<Key> ended_;
  std::unordered_map<scheduler::SequenceId, Running> running_;
  scheduler::SequenceId next_sequence_ = 1;
  Figures figures_;
  std::deque<uint64_t> one_row_steps_;  // in flight, in order
  bool given_up_ = false;
};

}  // namespace shoal::serving
