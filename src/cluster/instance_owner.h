// The instances that this node owns: it alone writes their facts. Loading until every rank's host reports its
// worker ready, then ready; failed as soon as a host leaves, a worker fails or nothing moves for too long. A
// fact that ended stays to be read for a while and is then withdrawn.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "base/clock.h"
#include "cluster/events.h"
#include "cluster/view.h"

namespace shoal::cluster {

inline constexpr auto kNoProgressLimit = seconds(60);  // of an instance that loads
inline constexpr auto kEndedLinger = seconds(30);      // an ended instance's fact stays this long

class InstanceOwner {
 public:
  explicit InstanceOwner(View& view) : view_(view) {}

  // Takes ownership and publishes; an Error says why not (and is given again when asked again).
  Result<> own(InstanceFact fact, TimePoint now, Actions& out);
  // By anyone's wish. An id we do not know is remembered, so that a late proposal of it is refused.
  void stop(const std::string& instance, TimePoint now, Actions& out);
  // True when a fact changed.
  bool reconcile(TimePoint now, Actions& out);
  void end_all(const Error& why, TimePoint now, Actions& out);

 private:
  struct Rank {
    bool seen = false;
    WorkerState state = WorkerState::starting;
    float progress = 0;
  };
  struct Owned {
    bool up = false;
    TimePoint moved_at{};  // the last time a rank came further, or when it ended
    std::vector<Rank> ranks;
  };

  std::optional<Error> check(const InstanceFact& fact, Owned& owned, TimePoint now);
  std::optional<Error> check_rank(const InstanceFact& fact, uint32_t rank, Owned& owned, TimePoint now);
  std::string rank_text(const InstanceFact& fact, uint32_t rank) const;
  void end(InstanceFact& fact, InstanceState state, const Error& why, TimePoint now, Actions& out);
  void publish(const InstanceFact& fact, Actions& out) const;
  void remember(const std::string& instance, const Error& why);

  View& view_;
  std::map<std::string, Owned> owned_;
  std::deque<std::pair<std::string, Error>> ended_;  // the latest ones
};

}  // namespace shoal::cluster
