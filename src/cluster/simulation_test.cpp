// Random lives of random clusters: every seed is a scenario of joins, crashes, partitions, placements, stops
// and worker failures. SHOAL_TEST_ALL=1 runs more seeds; SHOAL_SEED=n runs one and prints its trace.
#include <cstdlib>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "cluster/simulated_node.h"

namespace shoal::cluster {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kFirstSeed = 1;

struct Call {
  std::string what;
  NodeId node;
  uint64_t life = 0;  // of the node; a crash takes its calls along
  TimePoint deadline{};
  int done = 0;
  bool succeeded = false;
  Error error;
  InstanceFact instance;
};

class Scenario {
 public:
  explicit Scenario(uint64_t seed) : world_(seed) {
    size_t count = 2 + below(4);
    for (size_t i = 0; i < count; ++i) {
      ids_.push_back(fmt::format("{:015x}{:x}", 0xabc, i));
      memory_.push_back((400 + below(1200)) * kMiB);
      start(i);
    }
  }

  // Empty when every promise held.
  std::string run() {
    world_.network.set_faults({0.03, 0.03, 0.02, seconds(3)});
    world_.faults = {0.05, 0.02};
    TimePoint end = network().now() + seconds(60);
    while (network().now() < end && problem_.empty()) {
      disturb_something();
      advance(network().random_duration(milliseconds(50), milliseconds(3000)));
    }
    heal();
    advance(seconds(100));  // hanging loads time out, ended facts are withdrawn
    expect_agreement();
    stop_all_instances();
    expect_quiet_place();
    return problem_;
  }

  const std::vector<std::string>& trace() const { return world_.trace; }
  size_t successes() const { return successes_; }
  size_t failures() const { return failures_; }

 private:
  SimulatedNetwork& network() { return world_.network; }
  uint64_t below(uint64_t n) { return world_.network.random() % n; }
  SimulatedNode* node(size_t i) { return world_.node(ids_[i]); }

  void start(size_t i) {
    world_.note("{} is started", ids_[i]);
    ++lives_[ids_[i]];
    auto& slot = world_.nodes[ids_[i]];
    slot = std::make_unique<SimulatedNode>(world_, ids_[i], memory_[i]);
    slot->start();
  }

  void crash(size_t i) {
    world_.note("{} crashes", ids_[i]);
    ++lives_[ids_[i]];
    lose_links([&](const NodeId& other) { return other != ids_[i]; }, *node(i));
    world_.nodes[ids_[i]] = nullptr;
  }

  void shut_down(size_t i) {
    world_.note("{} shuts down", ids_[i]);
    node(i)->stop();
    if (!node(i)->workers().empty()) report("a node that shut down left workers behind");
    check_calls_of_stopped(ids_[i]);
    ++lives_[ids_[i]];
    world_.nodes[ids_[i]] = nullptr;
  }

  template <class Reaches>
  void lose_links(Reaches reaches, const SimulatedNode& from) {
    for (const auto& [key, worker] : from.workers()) {
      for (const auto& [id, other] : world_.nodes) {
        if (other && id != from.id() && reaches(id)) other->neighbour_lost(key.instance, key.epoch);
      }
    }
  }

  void split() {
    std::vector<bool> side;
    for (size_t i = 0; i < ids_.size(); ++i) side.push_back(below(2) == 0);
    world_.note("the network splits");
    for (size_t i = 0; i < ids_.size(); ++i) {
      for (size_t j = 0; j < ids_.size(); ++j) {
        if (side[i] == side[j] || i == j) continue;
        if (i < j) network().set_reachable(ids_[i], ids_[j], false);
        if (node(i)) lose_links([&](const NodeId& other) { return other == ids_[j]; }, *node(i));
      }
    }
  }

  void join_network() {
    world_.note("the network is whole");
    for (size_t i = 0; i < ids_.size(); ++i) {
      for (size_t j = 0; j < i; ++j) network().set_reachable(ids_[i], ids_[j], true);
    }
  }

  PlaceRequest request(uint32_t minimum_nodes) {
    PlaceRequest request;
    request.model = "model";
    request.digest = "digest";
    request.layer_count = 10;
    request.demand.name = "model";
    request.demand.layers.assign(10, {40 * kMiB, 0, 1000});
    request.options.context_tokens = 64;
    request.options.minimum_nodes = minimum_nodes;
    return request;
  }

  Call& place(size_t i, uint32_t minimum_nodes) {
    Call& call = *calls_.emplace_back(std::make_unique<Call>());
    // A worker that hangs is noticed after 60 s without progress, which may follow some of it.
    call = {"place", ids_[i], lives_[ids_[i]], network().now() + seconds(90), 0, false, {}, {}};
    world_.note("{} is asked to place on {} nodes", ids_[i], minimum_nodes);
    node(i)->cluster().place(request(minimum_nodes), [this, &call](Result<InstanceFact> result) {
      finish(call, result);
      if (result) call.instance = *result;
    });
    return call;
  }

  Call& stop(size_t i, const std::string& instance) {
    Call& call = *calls_.emplace_back(std::make_unique<Call>());
    call = {"stop", ids_[i], lives_[ids_[i]], network().now() + seconds(16), 0, false, {}, {}};
    world_.note("{} is asked to stop {}", ids_[i], instance);
    node(i)->cluster().stop_instance(instance, [this, &call](Result<> result) { finish(call, result); });
    return call;
  }

  template <class T>
  void finish(Call& call, const Result<T>& result) {
    ++call.done;
    call.succeeded = result.has_value();
    if (!result) call.error = result.error();
    world_.note("{} {} ends: {}", call.node, call.what, result ? "ok" : result.error().message);
    if (!result && result.error().message.empty()) report("an error without a message");
    if (call.what == "place") ++(result ? successes_ : failures_);
  }

  void disturb_something() {
    size_t i = below(ids_.size());
    SimulatedNode* chosen = node(i);
    uint64_t dice = below(100);
    if (!chosen) return start(i);
    if (dice < 40) {
      place(i, 1 + static_cast<uint32_t>(below(ids_.size())));
    } else if (dice < 55) {
      auto instances = chosen->cluster().instances();
      if (!instances.empty()) stop(i, instances[below(instances.size())].id);
    } else if (dice < 63) {
      crash(i);
    } else if (dice < 67) {
      crash(i);
      start(i);  // at once: nobody has noticed
    } else if (dice < 71) {
      shut_down(i);
    } else if (dice < 78) {
      split();
    } else if (dice < 86) {
      join_network();
    } else if (dice < 92) {
      world_.note("{} and its neighbour connect anew", ids_[i]);
      network().disturb(ids_[i], ids_[(i + 1) % ids_.size()]);
    } else if (!chosen->workers().empty()) {
      chosen->fail_worker(chosen->workers().begin()->first,
                          {ErrorCode::unavailable, "signal 9 (Killed)", ""});
    }
  }

  void heal() {
    world_.faults = {};
    network().set_faults({0, 0.03, 0.02, seconds(3)});
    join_network();
    for (size_t i = 0; i < ids_.size(); ++i) {
      if (!node(i)) start(i);
    }
  }

  void advance(Duration duration) {
    TimePoint end = network().now() + duration;
    bool reached = false;
    network().after(duration, [&] { reached = true; });
    while (!reached && problem_.empty() && network().step()) check();
    if (problem_.empty() && network().now() < end) report("time stands still");
  }

  void report(std::string problem) {
    if (!problem_.empty()) return;
    problem_ = std::move(problem);
    world_.note("PROBLEM: {}", problem_);
  }

  // What must hold after every single event.
  void check() {
    for (const auto& [id, one] : world_.nodes) {
      if (!one) continue;
      for (const auto& [key, worker] : one->workers()) {
        const InstanceFact* fact = one->cluster().find_instance(key.instance);
        if (!fact || !is_live(fact->state) || fact->epoch != key.epoch || fact->ranks[key.rank].node != id) {
          report(
              fmt::format("{} runs rank {} of {} without a fact that wants it", id, key.rank, key.instance));
        }
      }
    }
    check_single_owners();
    for (const auto& call : calls_) {
      if (call->done > 1) report(call->what + " ended twice");
      if (call->done == 0 && lives_[call->node] == call->life && network().now() > call->deadline) {
        report(fmt::format("{} at {} did not end in time", call->what, call->node));
      }
    }
    std::erase_if(calls_, [](const auto& call) { return call->done == 1 && call->what != "kept"; });
  }

  void check_single_owners() {
    std::map<std::string, NodeId> owners;
    for (const auto& [id, one] : world_.nodes) {
      if (!one) continue;
      for (const auto& [instance, epoch] : one->up()) {
        auto [owner, is_first] = owners.try_emplace(instance, id);
        if (!is_first && network().reachable(owner->second, id)) report(instance + " is up at two nodes");
      }
    }
  }

  void check_calls_of_stopped(const NodeId& id) {
    for (const auto& call : calls_) {
      if (call->node == id && call->life == lives_[id] && call->done != 1)
        report(call->what + " outlived its node");
    }
  }

  std::string summary(SimulatedNode& one) {
    std::string text;
    std::map<NodeId, std::string> nodes;
    for (const NodeFact& fact : one.cluster().nodes()) nodes[fact.id] = to_text(to_json(fact));
    for (const auto& [id, fact] : nodes) text += fact + "\n";
    for (InstanceFact fact : one.cluster().instances()) {
      fact.predicted_tokens_per_second = 0;  // JSON keeps 15 of its digits
      text += to_text(to_json(fact)) + "\n";
    }
    return text;
  }

  void expect_agreement() {
    if (!problem_.empty()) return;
    std::string first = summary(*node(0));
    for (size_t i = 0; i < ids_.size(); ++i) {
      if (node(i)->cluster().nodes().size() != ids_.size()) report(ids_[i] + " does not know every node");
      if (summary(*node(i)) != first)
        report(fmt::format("{} sees\n{}but {} sees\n{}", ids_[i], summary(*node(i)), ids_[0], first));
      for (const InstanceFact& fact : node(i)->cluster().instances()) {
        if (fact.state != InstanceState::ready)
          report(fmt::format("{} is still {}", fact.id, to_string(fact.state)));
      }
    }
  }

  void stop_all_instances() {
    if (!problem_.empty()) return;
    std::vector<Call*> stops;
    for (const InstanceFact& fact : node(0)->cluster().instances())
      stops.push_back(&keep(stop(below(ids_.size()), fact.id)));
    advance(seconds(17));
    for (Call* call : stops) {
      if (!call->succeeded) report("a stop failed on a healthy cluster: " + call->error.message);
    }
    for (size_t i = 0; i < ids_.size() && problem_.empty(); ++i) {
      if (!node(i)->workers().empty()) report(ids_[i] + " still runs a worker");
      if (node(i)->cluster().self().free_memory_bytes != memory_[i]) report(ids_[i] + " has lost memory");
    }
  }

  Call& keep(Call& call) {
    call.what = "kept";
    return call;
  }

  void expect_quiet_place() {
    if (!problem_.empty()) return;
    Call& call = keep(place(below(ids_.size()), 2));
    advance(seconds(12));
    if (problem_.empty() && !call.succeeded)
      return report("a placement failed on a healthy cluster: " + call.error.message);
    for (size_t i = 0; i < ids_.size() && problem_.empty(); ++i) {
      const InstanceFact* fact = node(i)->cluster().find_instance("model");
      if (!fact || fact->state != InstanceState::ready || fact->id != call.instance.id)
        report(ids_[i] + " does not see it");
    }
  }

  SimulatedWorld world_;
  std::vector<NodeId> ids_;
  std::vector<uint64_t> memory_;
  std::map<NodeId, uint64_t> lives_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::string problem_;
  size_t successes_ = 0, failures_ = 0;
};

std::string last_lines(const std::vector<std::string>& lines, size_t count) {
  std::string text;
  for (size_t i = lines.size() - std::min(lines.size(), count); i < lines.size(); ++i)
    text += lines[i] + "\n";
  return text;
}

TEST(Simulation, KeepsItsPromisesInRandomLives) {
  const char* one_seed = std::getenv("SHOAL_SEED");
  const char* all = std::getenv("SHOAL_TEST_ALL");
  uint64_t first = one_seed ? std::strtoull(one_seed, nullptr, 10) : kFirstSeed;
  uint64_t count = one_seed ? 1 : all && *all == '1' ? 2000 : 200;
  size_t successes = 0, failures = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    Scenario scenario(seed);
    std::string problem = scenario.run();
    ASSERT_EQ(problem, "") << "SHOAL_SEED=" << seed << "\n" << last_lines(scenario.trace(), 400);
    if (one_seed) fmt::print("{}", last_lines(scenario.trace(), SIZE_MAX));
    successes += scenario.successes();
    failures += scenario.failures();
  }
  if (one_seed) return;
  EXPECT_GT(successes, count);  // every scenario ends with one; the others show that chaos left room for work
  EXPECT_GT(failures, count);
}

}  // namespace
}  // namespace shoal::cluster
