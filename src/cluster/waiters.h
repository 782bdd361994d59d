// The place() and stop_instance() calls that wait on this node. They end by what is observed in the facts,
// not by answers, so that it does not matter who owns the instance or which message was lost; requests to the
// owner are repeated until their effect shows. Every call ends exactly once.
#pragma once

#include <list>

#include "base/clock.h"
#include "cluster/events.h"
#include "cluster/view.h"

namespace shoal::cluster {

inline constexpr auto kRepeatInterval = seconds(1);     // of a request whose effect does not show
inline constexpr auto kOwnerAnswerLimit = seconds(10);  // until the asked owner must have shown the instance
inline constexpr auto kPlaceLimit = std::chrono::minutes(30);
inline constexpr auto kStopLimit = seconds(15);  // until every host must have stopped its workers

class Waiters {
 public:
  explicit Waiters(View& view) : view_(view) {}

  void wait_placed(CallId call, InstanceFact proposal, TimePoint now);
  void wait_stopped(CallId call, const std::string& instance, TimePoint now);
  // The owner will not take it.
  void refused(const NodeId& owner, const std::string& instance, const Error& why, Actions& out);
  void reconcile(TimePoint now, Actions& out);
  void end_all(const Error& why, Actions& out);

 private:
  struct Placing {
    CallId call = 0;
    InstanceFact proposal;
    TimePoint asked_at{}, repeat_at{};
    bool seen = false;  // the owner's fact
  };
  struct Stopping {
    CallId call = 0;
    std::string instance;
    TimePoint asked_at{}, repeat_at{};
  };

  std::optional<Result<InstanceFact>> outcome(Placing& placing, TimePoint now) const;
  std::optional<Result<>> outcome(const Stopping& stopping, TimePoint now) const;
  const NodeFact* runs_worker_of(const std::string& instance) const;

  View& view_;
  std::list<Placing> placing_;
  std::list<Stopping> stopping_;
};

}  // namespace shoal::cluster
