// The pure heart of the cluster: apply(event, now) changes what this node knows and returns what is to be
// done. No I/O, no clock, no threads, no randomness: the same events give the same actions, on Zenoh and in
// the simulator. Order of work after each event: instances we own, workers we host, calls that wait, then
// what others shall hear.
#pragma once

#include "base/clock.h"
#include "cluster/events.h"
#include "cluster/instance_owner.h"
#include "cluster/planner_input.h"
#include "cluster/view.h"
#include "cluster/waiters.h"
#include "cluster/worker_host.h"

namespace shoal::cluster {

inline constexpr auto kReportInterval =
    milliseconds(250);  // between reports that only carry progress or figures

class Reducer {
 public:
  explicit Reducer(NodeFact self);
  Reducer(const Reducer&) = delete;  // its parts refer to its view
  Reducer& operator=(const Reducer&) = delete;

  Actions apply(const Event& event, TimePoint now);

  const View& view() const { return view_; }
  PlannerInput planner_input(const PlaceRequest& request) const;
  Result<std::vector<planner::Placement>> preview(const PlaceRequest& request) const;

 private:
  enum class Urgency { none, soon, now };  // of publishing our own report
  struct Known {                           // what the effects were told of an instance
    NodeId owner;
    uint32_t epoch = 0;
    InstanceState state = InstanceState::loading;

    bool operator==(const Known&) const = default;
  };

  void on(const Started& event, TimePoint now, Actions& out);
  void on(const Tick& event, TimePoint now, Actions& out);
  void on(const NodeJoined& event, TimePoint now, Actions& out);
  void on(const NodeLeft& event, TimePoint now, Actions& out);
  void on(const FactHeard& event, TimePoint now, Actions& out);
  void on(const MessageHeard& event, TimePoint now, Actions& out);
  void on(const WorkerReported& event, TimePoint now, Actions& out);
  void on(const SelfChanged& event, TimePoint now, Actions& out);
  void on(const PlaceAsked& event, TimePoint now, Actions& out);
  void on(const StopAsked& event, TimePoint now, Actions& out);
  void on(const Leaving& event, TimePoint now, Actions& out);

  void refuse_while_leaving(const Event& event, Actions& out);
  Result<> hear_message(const MessageHeard& event, TimePoint now, Actions& out);
  Result<InstanceFact> propose(const PlaceAsked& asked) const;
  void reconcile(TimePoint now, Actions& out);
  void announce_changes(Actions& out);
  void announce_vanished(const std::string& id, const Known& known, Actions& out);
  void publish_self(TimePoint now, Actions& out);

  View view_;
  InstanceOwner owner_;
  WorkerHost host_;
  Waiters waiters_;
  std::map<std::string, Known> known_;
  Urgency urgency_ = Urgency::now;
  TimePoint published_at_{};
  bool started_ = false;
  bool leaving_ = false;  // nothing is begun or heard any more
};

}  // namespace shoal::cluster
