// Asks a node that holds a model on behalf of one that does not, so that any node can be asked anything: what
// the holder's gateway tells its listener travels to the asker's. Both ends are here. Event-loop thread only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/clock.h"
#include "cluster/bus.h"
#include "serving/owner.h"
#include "serving/recent_keys.h"
#include "serving/relay_messages.h"
#include "serving/service.h"

namespace shoal::serving {

class Relay {
 public:
  // What the holder's end does with a request; it must not relay again.
  struct Local {
    std::function<GenerationId(GenerateRequest, std::shared_ptr<GenerationListener>)> generate;
    std::function<void(GenerationId)> cancel;
    std::function<void(const PlaceOptions&, JsonCallback)> place;
  };
  using NodeName = std::function<std::string(const cluster::NodeId&)>;

  Relay(Local local, NodeName node_name, const Clock& clock, Send send);
  ~Relay();

  // Ids of relayed generations have the top bit, those of a gateway have not.
  static bool is_relayed(GenerationId generation) { return generation >> 63 != 0; }
  GenerationId ask(const cluster::NodeId& holder, GenerateRequest request,
                   std::shared_ptr<GenerationListener> listener);
  void cancel(GenerationId generation);
  void place(const cluster::NodeId& holder, const PlaceOptions& options, JsonCallback done);

  void on_heard(const cluster::NodeId& sender, HeardMessage message);
  void on_placed(const cluster::NodeId& sender, PlacedMessage message);
  void on_ask(const cluster::NodeId& sender, AskMessage message);
  void on_hang_up(const cluster::NodeId& sender, const HangUpMessage& message);
  void on_place(const cluster::NodeId& sender, const PlaceMessage& message);

  void node_left(const cluster::NodeId& node);
  void fail_all(const Error& why);
  void tick(TimePoint now);

 private:
  class Speaker;
  using Key = std::pair<cluster::NodeId, uint64_t>;
  struct Asked {
    cluster::NodeId holder;
    std::shared_ptr<GenerationListener> listener;
    TimePoint asked{};
    uint32_t next_index = 0;  // of what is heard; 0: not even that it was taken
  };
  struct Placing {
    cluster::NodeId holder;
    JsonCallback done;
  };
  void fail(uint64_t id, const Error& error);
  void ended(const Key& key);

  Local local_;
  NodeName node_name_;
  const Clock& clock_;
  Send send_;
  std::map<uint64_t, Asked> asked_;
  std::map<uint64_t, Placing> placing_;
  std::map<Key, GenerationId> serving_;  // for others
  RecentKeys<Key> served_;
  RecentKeys<Key> placed_;
  uint64_t next_id_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace shoal::serving
