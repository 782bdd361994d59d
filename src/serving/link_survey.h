// What lies between this node and each other one, measured when they meet and now and then after that, never
// while a step runs here. One measurement at a time: the node that wants one asks the other over the bus,
// which answers with a nonce for its responder, or that it is busy. Event-loop thread only; the measuring
// itself is a thread of its own.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cluster/facts.h"
#include "serving/link_probe_responder.h"
#include "serving/owner.h"
#include "serving/task_pool.h"

namespace shoal::serving {

inline constexpr std::string_view kProbeAskTopic = "serving/probe-ask";
inline constexpr std::string_view kProbeOfferTopic = "serving/probe-offer";
inline constexpr std::string_view kProbeDoneTopic = "serving/probe-done";

struct ProbeAskMessage {  // may I measure?
  uint64_t id = 0;

  Bytes encode() const;
  static Result<ProbeAskMessage> decode(ByteView bytes);
};

struct ProbeOfferMessage {
  uint64_t id = 0;        // of the question
  bool accepted = false;  // false: not now
  ProbeNonce nonce{};

  Bytes encode() const;
  static Result<ProbeOfferMessage> decode(ByteView bytes);
};

struct ProbeDoneMessage {  // others may
  ProbeNonce nonce{};

  Bytes encode() const;
  static Result<ProbeDoneMessage> decode(ByteView bytes);
};

class LinkSurvey {
 public:
  struct Ports {
    std::function<std::vector<cluster::NodeFact>()> nodes;  // alive, ourselves among them
    std::function<bool()> busy;                             // a step may be running on this node
    Send send;
    std::function<void(std::vector<cluster::LinkFact>)> publish;  // all that are known now
  };
  // `addresses` are those that workers here listen on.
  LinkSurvey(boost::asio::io_context& io, cluster::NodeId self, std::vector<std::string> addresses,
             Ports ports);
  ~LinkSurvey() { stop(); }

  // Where others find our responder; 0: none could be started, which is logged.
  uint16_t port() const { return responder_ ? responder_->port() : 0; }
  void tick(TimePoint now);  // some times a second
  void on_ask(const cluster::NodeId& sender, const ProbeAskMessage& message);
  void on_offer(const cluster::NodeId& sender, const ProbeOfferMessage& message);
  void on_done(const ProbeDoneMessage& message);
  void stop();

 private:
  struct Peer {
    std::vector<std::string> addresses;
    uint16_t port = 0;
    TimePoint due{};
    uint32_t failures = 0;  // in a row
    std::vector<cluster::LinkFact> links;
  };
  struct Question {  // asked, and perhaps being measured
    cluster::NodeId peer;
    uint64_t id = 0;
    TimePoint deadline;
    bool measuring = false;
  };
  struct Outcome {
    std::vector<cluster::LinkFact> links;
    Duration took{};
    bool cancelled = false;
  };

  void follow_members(TimePoint now);
  void ask(TimePoint now);
  void measure(const cluster::NodeId& peer, const ProbeNonce& nonce);
  void finish(const cluster::NodeId& peer, const ProbeNonce& nonce, Outcome outcome);
  void try_again(const cluster::NodeId& peer, Duration after);
  void publish();

  cluster::NodeId self_;
  Ports ports_;
  SystemClock clock_;
  std::unique_ptr<LinkProbeResponder> responder_;
  std::map<cluster::NodeId, Peer> peers_;
  std::optional<Question> question_;
  uint64_t next_id_ = 1;
  TimePoint next_look_{};                         // at who is here
  std::shared_ptr<std::atomic<bool>> cancelled_;  // of the measurement under way
  TaskPool measuring_;
  bool stopped_ = false;
};

}  // namespace shoal::serving
