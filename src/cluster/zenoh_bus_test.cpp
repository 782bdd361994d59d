#include "cluster/zenoh_bus.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <mutex>
#include <thread>

#include "base/system.h"

namespace shoal::cluster {
namespace {

// An event loop that runs when the test waits for something.
class Loop {
 public:
  ZenohBus::Executor executor() {
    return [this](std::function<void()> action) {
      std::lock_guard lock(mutex_);
      actions_.push_back(std::move(action));
      changed_.notify_one();
    };
  }

  template <class Condition>
  bool run_until(Condition condition, std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      std::unique_lock lock(mutex_);
      if (!changed_.wait_until(lock, end, [&] { return !actions_.empty(); })) return false;
      auto action = std::move(actions_.front());
      actions_.pop_front();
      lock.unlock();
      action();
    }
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> actions_;
};

struct Node final : BusListener {
  Node(Loop& loop, std::string cluster, NodeId id)
      : bus(options(std::move(cluster)), std::move(id), loop.executor()) {}

  static ZenohOptions options(std::string cluster) {
    ZenohOptions options;
    options.cluster = std::move(cluster);
    options.listen = "127.0.0.1";
    options.lease_ms = 20'000;  // a test on a busy machine may stall
    return options;
  }

  void on_node_joined(const NodeId& node) override {
    EXPECT_FALSE(facts.contains(node)) << "joined twice";
    facts[node];
  }
  void on_node_left(const NodeId& node) override {
    EXPECT_EQ(facts.erase(node), 1u) << "left without having joined";
  }
  void on_fact(const NodeId& writer, std::string_view name, std::string_view value) override {
    ASSERT_TRUE(facts.contains(writer)) << "a fact before its node joined";
    facts[writer][std::string(name)] = value;
  }
  void on_message(const NodeId& sender, std::string_view topic, ByteView payload) override {
    EXPECT_TRUE(sender == bus.self() || facts.contains(sender)) << "a message before its node joined";
    messages.push_back(fmt::format("{} {} {}", sender.substr(14), topic, as_text(payload)));
  }

  std::string fact(const Node& writer, const std::string& name) {
    auto of_writer = facts.find(writer.bus.self());
    return of_writer == facts.end() ? "" : of_writer->second[name];
  }

  ZenohBus bus;
  std::map<NodeId, std::map<std::string, std::string>> facts;
  std::vector<std::string> messages;
};

std::string unique_cluster() {
  return fmt::format("test-{:016x}", random_u64());
}
NodeId id(int i) {
  return fmt::format("00000000000000{:02x}", i);
}

TEST(ZenohBus, NodesTellFactsAndLateOnesHearWhatHolds) {
  Loop loop;
  std::string cluster = unique_cluster();
  Node a(loop, cluster, id(1)), b(loop, cluster, id(2)), c(loop, cluster, id(3));
  ASSERT_TRUE(a.bus.start(a).has_value());
  a.bus.publish("node", "a1");
  a.bus.publish("instance/1", "gone soon");
  ASSERT_TRUE(b.bus.start(b).has_value());
  ASSERT_TRUE(loop.run_until([&] { return b.fact(a, "instance/1") == "gone soon" && a.facts.size() == 1; }));
  EXPECT_EQ(b.fact(a, "node"), "a1");

  a.bus.publish("node", "a2");
  a.bus.withdraw("instance/1");
  b.bus.publish("node", "b1");
  ASSERT_TRUE(loop.run_until([&] { return b.fact(a, "instance/1").empty() && a.fact(b, "node") == "b1"; }));
  EXPECT_EQ(b.fact(a, "node"), "a2");

  ASSERT_TRUE(c.bus.start(c).has_value());
  ASSERT_TRUE(loop.run_until([&] { return c.fact(a, "node") == "a2" && c.fact(b, "node") == "b1"; }));
  EXPECT_FALSE(c.facts[id(1)].contains("instance/1")) << "a withdrawn fact was told";
  EXPECT_TRUE(loop.run_until([&] { return a.facts.size() == 2 && b.facts.size() == 2; }));
}

TEST(ZenohBus, MessagesArriveOnceAndInOrder) {
  Loop loop;
  std::string cluster = unique_cluster();
  Node a(loop, cluster, id(1)), b(loop, cluster, id(2));
  ASSERT_TRUE(a.bus.start(a).has_value());
  ASSERT_TRUE(b.bus.start(b).has_value());
  ASSERT_TRUE(loop.run_until([&] { return a.facts.size() == 1 && b.facts.size() == 1; }));
  std::vector<std::string> expected;
  for (int i = 0; i < 500; ++i) {
    std::string topic = i % 3 == 0 ? "serving/x" : "serving/y";
    a.bus.send(id(2), topic, as_bytes(std::to_string(i)));
    expected.push_back(fmt::format("01 {} {}", topic, i));
  }
  a.bus.send(id(9), "nobody", {});
  ASSERT_TRUE(loop.run_until([&] { return b.messages.size() >= expected.size(); }));
  EXPECT_EQ(b.messages, expected);

  std::string large(3 << 20, 'x');
  b.bus.send(id(1), "large", as_bytes(large));
  b.bus.send(id(2), "self", as_bytes("me"));
  ASSERT_TRUE(
      loop.run_until([&] { return a.messages.size() == 1 && b.messages.size() == expected.size() + 1; }));
  EXPECT_EQ(a.messages[0].size(), large.size() + 9);
  EXPECT_EQ(b.messages.back(), "02 self me");
}

TEST(ZenohBus, StoppingIsLeavingAndARestartedNodeIsANewLife) {
  Loop loop;
  std::string cluster = unique_cluster();
  Node a(loop, cluster, id(1));
  ASSERT_TRUE(a.bus.start(a).has_value());
  {
    Node b(loop, cluster, id(2));
    ASSERT_TRUE(b.bus.start(b).has_value());
    b.bus.publish("node", "first life");
    ASSERT_TRUE(loop.run_until([&] { return a.fact(b, "node") == "first life"; }));
  }
  ASSERT_TRUE(loop.run_until([&] { return a.facts.empty(); }, std::chrono::milliseconds(5000)));
  Node b(loop, cluster, id(2));
  ASSERT_TRUE(b.bus.start(b).has_value());
  b.bus.publish("node", "second life");
  ASSERT_TRUE(loop.run_until([&] { return a.fact(b, "node") == "second life"; }));
}

TEST(ZenohBus, ClustersOfOtherNamesAreNotSeen) {
  Loop loop;
  std::string cluster = unique_cluster();
  Node a(loop, cluster, id(1)), stranger(loop, cluster + "-other", id(2)), b(loop, cluster, id(3));
  ASSERT_TRUE(stranger.bus.start(stranger).has_value());
  ASSERT_TRUE(a.bus.start(a).has_value());
  ASSERT_TRUE(b.bus.start(b).has_value());
  ASSERT_TRUE(loop.run_until([&] { return a.facts.contains(id(3)) && b.facts.contains(id(1)); }));
  loop.run_until([] { return false; }, std::chrono::milliseconds(500));
  EXPECT_FALSE(a.facts.contains(id(2)));
  EXPECT_TRUE(stranger.facts.empty());
}

TEST(ZenohConfig, IsDerivedFromTheName) {
  EXPECT_EQ(cluster_hash("shoal"), cluster_hash("shoal"));
  EXPECT_EQ(key_prefix(""), "shoal/cbf29ce484222325");  // FNV-1a's offset basis
  EXPECT_NE(key_prefix("home"), key_prefix("Home"));
  for (int i = 0; i < 1000; ++i) {
    std::string name = std::to_string(i);
    EXPECT_GE(first_port(name), 20000);
    EXPECT_LE(first_port(name) + kPortRangeSize, 32768);  // where Linux begins its ephemeral ports
    EXPECT_GE(multicast_port(name), 10000);
    EXPECT_LT(multicast_port(name), 20000);
  }
}

TEST(ZenohConfig, RefusesAddressesThatMakeNoSense) {
  for (std::string peer :
       {"", ":", "host:", "host:0", "host:70000", "[::1", "[::1]x", "a b", "tcp/host:1", "[::1]:", "x\"y"}) {
    ZenohOptions options;
    options.peers = {peer};
    auto configuration = zenoh_configuration(options);
    ASSERT_FALSE(configuration.has_value()) << peer;
    EXPECT_EQ(configuration.error().code, ErrorCode::invalid_argument);
  }
  ZenohOptions options;
  options.peers = {"fe80::1", "[::1]:7000", "nas.local", "10.0.0.1:7447"};
  auto configuration = zenoh_configuration(options);
  ASSERT_TRUE(configuration.has_value()) << configuration.error().text();
  EXPECT_NE(configuration->find("tcp/[::1]:7000"), configuration->npos) << *configuration;
  options.listen = "not-an-address";
  EXPECT_FALSE(zenoh_configuration(options).has_value());
}

}  // namespace
}  // namespace shoal::cluster
