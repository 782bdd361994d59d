// One Zenoh session and the keys of one cluster in it. Callbacks come on Zenoh's threads and must not block;
// what is sent goes through a thread of its own, because a put waits for slow receivers and the event loop
// must not.
//
//   <prefix>/alive/<node>/<life>                              liveliness token
//   <prefix>/state/<node>/<life>                              answers with the cluster's name and all facts
//   of the node <prefix>/fact/<node>/<life>/<name...>                     a fact's new value
//   <prefix>/to/<receiver>/<life>/<sender>/<life>             messages
//
// A life is drawn anew at every start, so that nothing of or for an earlier one is taken for the present one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "cluster/bus.h"

namespace shoal::cluster {

using Life = std::string;  // 16 hexadecimal digits

struct Living {
  NodeId node;
  Life life;

  bool operator==(const Living&) const = default;
};

// On any thread, at the same time for different senders; in order for one sender and kind. Nothing is checked
// but the shape of the key.
class ZenohListener {
 public:
  virtual ~ZenohListener() = default;
  virtual void on_token(const Living& who, bool alive) = 0;
  virtual void on_fact(const Living& writer, std::string_view name, ByteView payload) = 0;
  virtual void on_message(const Living& sender, ByteView payload) = 0;
  virtual void on_state(const Living& who, ByteView payload) = 0;
  // The asking is over; on_state came before if it was answered.
  virtual void on_state_asked(const Living& who) = 0;
  // This machine got an address that it did not have.
  virtual void on_new_address() = 0;
};

struct FactValue {
  uint64_t sequence = 0;
  bool present = true;  // false: withdrawn
  std::string value;

  Bytes encode() const;
  static Result<FactValue> decode(ByteView payload);
};

class ZenohSession {
 public:
  static Result<std::unique_ptr<ZenohSession>> open(const std::string& configuration, std::string cluster,
                                                    const Living& self,
                                                    std::shared_ptr<ZenohListener> listener);
  virtual ~ZenohSession() = default;  // says good-bye; no callback after it

  // In the order of the calls. All return at once.
  virtual void publish(std::string name, FactValue value) = 0;
  virtual void send(const Living& receiver, Bytes payload) = 0;
  virtual void ask_state(const Living& who, Duration delay) = 0;
};

}  // namespace shoal::cluster
