// When links are measured, and when not: surveys of several nodes in one loop, with real sockets on loopback.
#include "serving/link_survey.h"

#include <boost/asio/post.hpp>
#include <gtest/gtest.h>

namespace shoal::serving {
namespace {

// Nodes that hear each other through the loop.
class LinkSurveys : public ::testing::Test {
 protected:
  struct Machine {
    cluster::NodeFact fact;
    bool busy = false;
    size_t published = 0;
    std::unique_ptr<LinkSurvey> survey;
  };

  ~LinkSurveys() override {
    for (auto& [id, machine] : machines) machine.survey->stop();
    io.restart();
    io.poll();
  }
  Machine& add(char digit) {
    const cluster::NodeId id(16, digit);
    Machine& machine = machines[id];
    machine.fact.id = id;
    machine.fact.addresses = {"127.0.0.1"};
    machine.survey = std::make_unique<LinkSurvey>(
        io, id, machine.fact.addresses,
        LinkSurvey::Ports{.nodes = [this] { return facts(); },
                          .busy = [&machine] { return machine.busy; },
                          .send = [this, id](const cluster::NodeId& receiver, std::string_view topic,
                                             const Bytes& payload) { send(id, receiver, topic, payload); },
                          .publish =
                              [&machine](std::vector<cluster::LinkFact> links) {
                                machine.fact.links = std::move(links);
                                machine.published += 1;
                              }});
    machine.fact.probe_port = machine.survey->port();
    return machine;
  }
  std::vector<cluster::NodeFact> facts() const {
    std::vector<cluster::NodeFact> all;
    for (const auto& [id, machine] : machines) all.push_back(machine.fact);
    return all;
  }
  void send(const cluster::NodeId& sender, const cluster::NodeId& receiver, std::string_view topic,
            const Bytes& payload) {
    messages += 1;
    boost::asio::post(io, [this, sender, receiver, topic = std::string(topic), payload] {
      const auto machine = machines.find(receiver);
      if (machine == machines.end()) return;
      LinkSurvey& survey = *machine->second.survey;
      if (topic == kProbeAskTopic) survey.on_ask(sender, *ProbeAskMessage::decode(payload));
      if (topic == kProbeOfferTopic) survey.on_offer(sender, *ProbeOfferMessage::decode(payload));
      if (topic == kProbeDoneTopic) survey.on_done(*ProbeDoneMessage::decode(payload));
    });
  }
  template <class Condition>
  bool run_until(Condition condition, Duration patience = seconds(30)) {
    const TimePoint deadline = clock.now() + patience;
    while (!condition()) {
      if (clock.now() > deadline) return false;
      for (auto& [id, machine] : machines) machine.survey->tick(clock.now());
      if (io.stopped()) io.restart();
      io.run_for(milliseconds(5));
    }
    return true;
  }
  size_t measured(const Machine& machine) const { return machine.fact.links.size(); }

  SystemClock clock;
  boost::asio::io_context io;
  std::map<cluster::NodeId, Machine> machines;
  size_t messages = 0;
};

TEST_F(LinkSurveys, EveryPairIsMeasuredFromBothEnds) {
  for (const char digit : {'a', 'b', 'c', 'd'}) add(digit);
  ASSERT_TRUE(run_until([&] {
    return std::ranges::all_of(machines, [&](const auto& one) { return measured(one.second) == 3; });
  }));
  for (const auto& [id, machine] : machines) {
    for (const cluster::LinkFact& link : machine.fact.links) {
      EXPECT_NE(link.peer, id);
      EXPECT_EQ(link.kind, "loopback");
      EXPECT_EQ(link.peer_address, "127.0.0.1");
      EXPECT_GT(link.rtt_p50_us, 0);
      EXPECT_GT(link.bytes_per_second, 1e6);
      EXPECT_GT(link.measured_at, 0);
    }
  }
  // And then there is peace for a while.
  run_until([] { return false; }, milliseconds(300));
  messages = 0;
  run_until([] { return false; }, milliseconds(500));
  EXPECT_EQ(messages, 0u);
}

TEST_F(LinkSurveys, NothingIsMeasuredWhileAStepRunsAtEitherEnd) {
  Machine& a = add('a');
  Machine& b = add('b');
  a.busy = true;
  run_until([] { return false; }, milliseconds(500));
  EXPECT_EQ(measured(a), 0u);
  EXPECT_EQ(measured(b), 0u);
  a.busy = false, b.busy = true;
  run_until([] { return false; }, milliseconds(500));
  EXPECT_EQ(measured(a), 0u);
  EXPECT_EQ(measured(b), 0u);
  b.busy = false;
  EXPECT_TRUE(run_until([&] { return measured(a) == 1 && measured(b) == 1; }));
}

TEST_F(LinkSurveys, LinksToNodesThatLeftAreForgotten) {
  Machine& a = add('a');
  add('b');
  ASSERT_TRUE(run_until([&] { return measured(a) == 1; }));
  machines.at(cluster::NodeId(16, 'b')).survey->stop();
  machines.erase(cluster::NodeId(16, 'b'));
  EXPECT_TRUE(run_until([&] { return measured(a) == 0; }));
}

TEST_F(LinkSurveys, ANewAddressIsMeasuredAnew) {
  Machine& a = add('a');
  Machine& b = add('b');
  ASSERT_TRUE(run_until([&] { return measured(a) == 1; }));
  const size_t published = a.published;
  b.fact.addresses = {"127.0.0.2", "127.0.0.1"};  // nothing listens at the first
  // The old figures go at once, new ones follow.
  ASSERT_TRUE(run_until([&] { return a.published >= published + 2; }));
  ASSERT_EQ(measured(a), 1u);
  EXPECT_EQ(a.fact.links[0].peer_address, "127.0.0.1");
}

TEST_F(LinkSurveys, ANodeThatNeverAnswersHoldsUpNobody) {
  Machine& a = add('a');
  Machine& b = add('b');
  Machine& silent = add('0');
  const cluster::NodeFact fact = silent.fact;
  silent.survey->stop();  // its port is closed, and it refuses
  silent.fact = fact;
  EXPECT_TRUE(run_until([&] { return measured(a) == 1 && measured(b) == 1; }));
}

TEST(ProbeMessages, AreReadBackAndDamageIsRefused) {
  ProbeOfferMessage offer{.id = 7, .accepted = true};
  offer.nonce.fill(std::byte{3});
  const Bytes bytes = offer.encode();
  const auto read = ProbeOfferMessage::decode(bytes);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->id, 7u);
  EXPECT_TRUE(read->accepted);
  EXPECT_EQ(read->nonce, offer.nonce);
  EXPECT_EQ(ProbeAskMessage::decode(ProbeAskMessage{9}.encode())->id, 9u);
  EXPECT_EQ(ProbeDoneMessage::decode(ProbeDoneMessage{offer.nonce}.encode())->nonce, offer.nonce);
  Bytes longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(ProbeOfferMessage::decode(longer).has_value());
  Bytes flag = bytes;
  flag[8] = std::byte{2};
  EXPECT_FALSE(ProbeOfferMessage::decode(flag).has_value());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(ProbeOfferMessage::decode(ByteView(bytes).first(length)).has_value()) << length;
    if (length != 8) {
      EXPECT_FALSE(ProbeAskMessage::decode(ByteView(bytes).first(length)).has_value()) << length;
    }
    if (length != 16) {
      EXPECT_FALSE(ProbeDoneMessage::decode(ByteView(bytes).first(length)).has_value()) << length;
    }
  }
}

}  // namespace
}  // namespace shoal::serving
