// The workers that this node runs for instances it has a stage of, whoever owns them. A worker runs only
// while its instance's fact says that it is wanted; when the fact is gone (its owner left, it failed, a newer
// epoch) it is stopped at once. A rank that was stopped or lost is never started again in its epoch: the
// owner hears that it failed.
#pragma once

#include <deque>
#include <map>

#include "cluster/events.h"
#include "cluster/view.h"

namespace shoal::cluster {

class WorkerHost {
 public:
  explicit WorkerHost(View& view) : view_(view) {}

  // True when our own report changed in more than progress.
  bool hear(const WorkerReported& report, Actions& out);
  bool reconcile(Actions& out);
  void stop_all(Actions& out);

 private:
  struct Hosted {
    std::map<uint32_t, uint16_t> called_ports = {};  // of the ranks that it was told to call
    bool stopped = false;                            // it failed, and what was left of it was stopped
  };

  WorkerFact* report_of(const WorkerKey& key);
  bool wanted(const WorkerKey& key) const;
  bool was_stopped(const WorkerKey& key) const;
  void begin(const InstanceFact& fact, uint32_t rank, Actions& out);
  void end(const WorkerKey& key, const Hosted& hosted, Actions& out);
  void connect(const WorkerKey& key, Hosted& hosted, Actions& out);

  View& view_;
  std::map<WorkerKey, Hosted> hosted_;
  std::deque<WorkerKey> stopped_;  // the latest ones
};

}  // namespace shoal::cluster
