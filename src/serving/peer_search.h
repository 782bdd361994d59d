// Asks the other nodes whether they too hold a model that was named by its path, so that they can take part
// in serving it: nodes list only what lies in their stores until somebody names a path. Event-loop thread
// only.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "cluster/facts.h"
#include "serving/owner.h"

namespace shoal::serving {

inline constexpr std::string_view kSeekTopic =
    "serving/seek";  // to every node: are these files at this path?
inline constexpr std::string_view kSoughtTopic = "serving/sought";  // back, after telling all if it does

struct SeekMessage {
  uint64_t id = 0;
  std::string name;    // the path
  std::string digest;  // of the asker's files there

  Bytes encode() const;
  static Result<SeekMessage> decode(ByteView bytes);
};

struct SoughtMessage {
  uint64_t id = 0;
  bool found = false;

  Bytes encode() const;
  static Result<SoughtMessage> decode(ByteView bytes);
};

class PeerSearch {
 public:
  using Nodes = std::function<std::vector<cluster::NodeFact>()>;  // alive, ourselves included

  PeerSearch(cluster::NodeId self, Nodes nodes, const Clock& clock, Send send);

  // `done` is called once: when every node that was asked has answered, tells that it holds `digest`, or
  // left; after kPatience at the latest. At once, within the call, when there is nobody to ask.
  void seek(const std::string& name, const std::string& digest, std::function<void()> done);

  void on_sought(const cluster::NodeId& sender, const SoughtMessage& message);
  void tick(TimePoint now);  // also ends what waits for facts and nodes
  void end_all();            // no answer will come any more

  static constexpr Duration kPatience = seconds(3);  // a large model's headers from a slow disk

 private:
  struct Search {
    std::string digest;
    std::set<cluster::NodeId> waits_for;
    TimePoint deadline{};
    std::function<void()> done;
  };

  cluster::NodeId self_;
  Nodes nodes_;
  const Clock& clock_;
  Send send_;
  std::map<uint64_t, Search> searches_;
  uint64_t next_id_ = 1;
};

}  // namespace shoal::serving
