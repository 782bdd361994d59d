#include "cluster/reducer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace shoal::cluster {
namespace {

const NodeId kSelf = "000000000000000a", kBeta = "000000000000000b", kGamma = "000000000000000c";
const std::string kInstance = "1111111111111111";

NodeFact node(const NodeId& id, uint64_t memory = 1000) {
  NodeFact fact;
  fact.id = id;
  fact.name = "node-" + id.substr(15);
  fact.total_memory_bytes = fact.free_memory_bytes = memory;
  fact.decode_bytes_per_second = 1e9;
  fact.addresses = {"10.0.0." + id.substr(15)};
  fact.models = {{"demo", "digest", "llama", 400}};
  return fact;
}

PlaceRequest request(uint32_t minimum_nodes = 1) {
  PlaceRequest request;
  request.model = "demo";
  request.digest = "digest";
  request.layer_count = 4;
  request.demand.name = "demo";
  request.demand.layers.assign(4, {100, 0, 0});
  request.options.minimum_nodes = minimum_nodes;
  return request;
}

InstanceFact instance(const NodeId& owner, std::vector<NodeId> nodes,
                      InstanceState state = InstanceState::loading) {
  InstanceFact fact;
  fact.id = kInstance;
  fact.model = "demo";
  fact.digest = "digest";
  fact.epoch = 1;
  fact.owner = owner;
  fact.state = state;
  for (uint32_t i = 0; i < nodes.size(); ++i) fact.ranks.push_back({nodes[i], i, i + 1, 100});
  fact.layer_count = static_cast<uint32_t>(nodes.size());
  return fact;
}

// A reducer with its clock; run() collects what the last event asked for.
struct Bench {
  Reducer reducer{node(kSelf)};
  TimePoint now{};
  Actions actions;

  Bench() { run(Started{}); }
  void run(const Event& event) { actions = reducer.apply(event, now); }
  void tick(Duration after) {
    now += after;
    run(Tick{});
  }
  void join(const NodeFact& fact) {
    run(NodeJoined{fact.id});
    hear(fact);
  }
  void hear(const NodeFact& fact) { run(FactHeard{fact.id, "node", to_text(to_json(fact))}); }
  void hear(const InstanceFact& fact) {
    run(FactHeard{fact.owner, "instance/" + fact.id, to_text(to_json(fact))});
  }
  void message(const NodeId& sender, std::string_view topic, const JsonObject& object) {
    run(MessageHeard{sender, std::string(topic), to_text(object)});
  }
  void worker(WorkerState state, uint32_t rank = 0) {
    run(WorkerReported{{kInstance, 1, rank}, state, {}, {}, {}});
  }

  template <class T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const Action& action : actions) {
      if (const T* one = std::get_if<T>(&action)) found.push_back(*one);
    }
    return found;
  }
  template <class T>
  T only() const {
    auto found = all<T>();
    EXPECT_EQ(found.size(), 1u);
    return found.empty() ? T{} : found[0];
  }
};

NodeFact with_worker(NodeFact fact, uint32_t rank, WorkerState state, uint16_t port = 0) {
  fact.workers = {{kInstance, 1, rank, state, 0, port, std::nullopt}};
  return fact;
}

TEST(Reducer, PlacesOnOneNode) {
  Bench bench;
  bench.run(PlaceAsked{7, request(), kInstance, "secret"});
  EXPECT_EQ(bench.only<StartWorker>().rank, 0u);
  EXPECT_TRUE(bench.all<PlaceDone>().empty());
  bench.worker(WorkerState::loaded);
  bench.worker(WorkerState::ready);
  EXPECT_EQ(bench.only<InstanceUp>().instance.id, kInstance);
  auto done = bench.only<PlaceDone>();
  EXPECT_EQ(done.call, 7u);
  EXPECT_EQ(done.result->state, InstanceState::ready);
  EXPECT_EQ(done.result->kv_page_count, 4096u / 32);
}

TEST(Reducer, ConnectsRanksInARingOnceTheyListen) {
  Bench bench;
  bench.join(node(kBeta));
  bench.hear(instance(kBeta, {kBeta, kSelf}));
  EXPECT_EQ(bench.only<StartWorker>().rank, 1u);
  EXPECT_TRUE(bench.all<ConnectWorker>().empty());
  bench.hear(with_worker(node(kBeta), 0, WorkerState::loading, 4711));
  auto connect = bench.only<ConnectWorker>();
  EXPECT_EQ(connect.worker.rank, 1u);
  EXPECT_EQ(connect.port, 4711);
  EXPECT_EQ(connect.addresses, std::vector<std::string>{"10.0.0.b"});
  bench.hear(with_worker(node(kBeta), 0, WorkerState::loaded, 4711));
  EXPECT_TRUE(bench.all<ConnectWorker>().empty());
}

TEST(Reducer, StopsWorkersAtOnceWhenTheOwnerLeaves) {
  Bench bench;
  bench.join(node(kBeta));
  bench.hear(instance(kBeta, {kBeta, kSelf}));
  bench.run(NodeLeft{kBeta});
  EXPECT_EQ(bench.only<StopWorker>().worker.instance, kInstance);
  auto changed = bench.only<InstanceChanged>();
  EXPECT_FALSE(changed.fact.has_value());
  EXPECT_EQ(changed.why->code, ErrorCode::unavailable);
  EXPECT_EQ(changed.why->message, "node node-b left, which owned instance 1111111111111111");
  EXPECT_TRUE(bench.reducer.view().self().workers.empty());
}

TEST(Reducer, ARankOnceStoppedIsReportedLostNotStartedAgain) {
  Bench bench;
  bench.join(node(kBeta));
  bench.hear(instance(kBeta, {kBeta, kSelf}));
  bench.run(NodeLeft{kBeta});
  bench.join(node(kBeta));  // its owner never noticed
  bench.hear(instance(kBeta, {kBeta, kSelf}));
  EXPECT_TRUE(bench.all<StartWorker>().empty());
  ASSERT_EQ(bench.reducer.view().self().workers.size(), 1u);
  EXPECT_EQ(bench.reducer.view().self().workers[0].state, WorkerState::failed);
}

TEST(Reducer, AReadyInstanceWhoseWorkerANodeNeverHadIsReportedLost) {
  Bench bench;  // as after a restart that nobody noticed
  bench.join(node(kBeta));
  bench.hear(instance(kBeta, {kBeta, kSelf}, InstanceState::ready));
  EXPECT_TRUE(bench.all<StartWorker>().empty());
  EXPECT_EQ(bench.reducer.view().self().workers[0].state, WorkerState::failed);
}

TEST(Reducer, FailsTheInstanceWhenAHostLeavesAndSaysWhich) {
  Bench bench;
  bench.join(node(kBeta));
  bench.message(kBeta, kPlaceTopic, to_json(instance(kSelf, {kSelf, kBeta})));
  bench.worker(WorkerState::ready);
  bench.hear(with_worker(node(kBeta), 1, WorkerState::ready));
  EXPECT_EQ(bench.all<InstanceUp>().size(), 1u);
  bench.run(NodeLeft{kBeta});
  auto down = bench.only<InstanceDown>();
  EXPECT_EQ(down.why.code, ErrorCode::unavailable);
  EXPECT_EQ(down.why.message, "node node-b left with rank 1 of demo");
  EXPECT_EQ(bench.only<StopWorker>().worker.rank, 0u);
}

TEST(Reducer, FailsTheInstanceWhenAWorkerFailsOrVanishes) {
  for (bool vanish : {false, true}) {
    Bench bench;
    bench.join(node(kBeta));
    bench.message(kBeta, kPlaceTopic, to_json(instance(kSelf, {kSelf, kBeta})));
    bench.hear(with_worker(node(kBeta), 1, WorkerState::loading));
    NodeFact report = vanish ? node(kBeta) : with_worker(node(kBeta), 1, WorkerState::failed);
    if (!vanish) report.workers[0].error = Error{ErrorCode::out_of_memory, "no room", ""};
    bench.hear(report);
    auto changed = bench.only<InstanceChanged>();
    EXPECT_EQ(changed.fact->state, InstanceState::failed);
    EXPECT_EQ(changed.why->code, vanish ? ErrorCode::unavailable : ErrorCode::out_of_memory);
    EXPECT_NE(changed.why->message.find("rank 1 of demo on node node-b"), std::string::npos)
        << changed.why->message;
    EXPECT_TRUE(bench.all<InstanceDown>().empty());  // it never was up
  }
}

TEST(Reducer, LoadingWithoutProgressFailsAndNamesWhoIsBehind) {
  Bench bench;
  bench.join(node(kBeta));
  bench.message(kBeta, kPlaceTopic, to_json(instance(kSelf, {kSelf, kBeta})));
  bench.worker(WorkerState::ready);
  bench.tick(seconds(40));
  NodeFact progress = with_worker(node(kBeta), 1, WorkerState::loading);
  bench.hear(progress);
  bench.tick(seconds(40));
  progress.workers[0].progress = 0.5f;
  bench.hear(progress);
  bench.tick(seconds(59));
  EXPECT_TRUE(bench.all<InstanceChanged>().empty());
  bench.tick(seconds(2));
  auto why = bench.only<InstanceChanged>().why;
  EXPECT_EQ(why->code, ErrorCode::timeout);
  EXPECT_EQ(why->message, "rank 1 of demo on node node-b made no progress for 60 s (loading)");
}

TEST(Reducer, TheHigherEpochWinsAndTheOtherStops) {
  Bench bench;
  bench.join(node(kBeta));
  bench.message(kBeta, kPlaceTopic, to_json(instance(kSelf, {kSelf})));
  bench.worker(WorkerState::ready);
  InstanceFact adopted = instance(kBeta, {kBeta}, InstanceState::ready);
  adopted.epoch = 2;
  bench.hear(adopted);
  EXPECT_EQ(bench.only<InstanceDown>().why.code, ErrorCode::conflict);
  EXPECT_EQ(bench.only<StopWorker>().worker.epoch, 1u);
  EXPECT_EQ(bench.reducer.view().find_instance(kInstance)->owner, kBeta);
  InstanceFact older = instance(kBeta, {kBeta, kSelf});
  bench.hear(older);  // late
  EXPECT_TRUE(bench.all<StartWorker>().empty());
  EXPECT_EQ(bench.reducer.view().find_instance(kInstance)->epoch, 2u);
}

TEST(Reducer, ALateProposalOfWhatWasStoppedIsRefused) {
  Bench bench;
  bench.join(node(kBeta));
  bench.message(kBeta, kStopTopic, {{"instance", kInstance}});
  bench.message(kBeta, kPlaceTopic, to_json(instance(kSelf, {kSelf})));
  EXPECT_TRUE(bench.all<StartWorker>().empty());
  EXPECT_EQ(bench.only<SendMessage>().topic, kRefusedTopic);
}

TEST(Reducer, OnlyTheNodeOfStageZeroTakesAnInstanceToOwn) {
  Bench bench;
  bench.join(node(kBeta));
  bench.message(kBeta, kPlaceTopic, to_json(instance(kSelf, {kBeta, kSelf})));
  EXPECT_EQ(bench.only<SendMessage>().topic, kRefusedTopic);
  EXPECT_TRUE(bench.all<StartWorker>().empty());
}

TEST(Reducer, AskingAnOwnerIsRepeatedAndEndsInTime) {
  Bench bench;
  NodeFact fast = node(kBeta);
  fast.decode_bytes_per_second = 100e9;
  bench.join(fast);
  bench.run(PlaceAsked{1, request(), kInstance, ""});
  EXPECT_EQ(bench.only<SendMessage>().receiver, kBeta);
  int repeats = 0;
  for (int i = 0; i < 99; ++i) {
    bench.tick(milliseconds(100));
    repeats += static_cast<int>(bench.all<SendMessage>().size());
    ASSERT_TRUE(bench.all<PlaceDone>().empty());
  }
  EXPECT_EQ(repeats, 9);
  bench.tick(milliseconds(100));
  EXPECT_EQ(bench.only<PlaceDone>().result.error().code, ErrorCode::timeout);
  EXPECT_EQ(bench.only<SendMessage>().topic, kStopTopic);
  bench.tick(seconds(5));
  EXPECT_TRUE(bench.all<PlaceDone>().empty());
}

TEST(Reducer, ARefusalEndsTheCall) {
  Bench bench;
  NodeFact fast = node(kBeta);
  fast.decode_bytes_per_second = 100e9;
  bench.join(fast);
  bench.run(PlaceAsked{1, request(), kInstance, ""});
  JsonObject refusal{{"instance", kInstance},
                     {"error", to_json(Error{ErrorCode::limit_exceeded, "too many", ""})}};
  bench.message(kGamma, kRefusedTopic, refusal);
  EXPECT_TRUE(bench.all<PlaceDone>().empty()) << "only the asked owner may refuse";
  bench.message(kBeta, kRefusedTopic, refusal);
  EXPECT_EQ(bench.only<PlaceDone>().result.error().code, ErrorCode::limit_exceeded);
}

TEST(Reducer, StopIsDoneWhenNoWorkerIsLeft) {
  Bench bench;
  bench.join(node(kBeta));
  bench.join(node(kGamma));
  bench.hear(instance(kBeta, {kBeta, kGamma}, InstanceState::ready));
  bench.hear(with_worker(node(kGamma), 1, WorkerState::ready));
  bench.run(StopAsked{3, kInstance});
  EXPECT_EQ(bench.only<SendMessage>().receiver, kBeta);
  bench.hear(instance(kBeta, {kBeta, kGamma}, InstanceState::stopped));
  EXPECT_TRUE(bench.all<StopDone>().empty());
  bench.hear(node(kGamma));
  EXPECT_TRUE(bench.only<StopDone>().result.has_value());
  bench.run(StopAsked{4, "2222222222222222"});
  EXPECT_EQ(bench.only<StopDone>().result.error().code, ErrorCode::not_found);
}

TEST(Reducer, MemoryThatIsPromisedIsNotPromisedTwice) {
  Bench bench;
  bench.join(node(kBeta, 400));
  PlaceRequest large = request();
  EXPECT_EQ(bench.reducer.preview(large)->front().stages.size(), 1u);
  InstanceFact loading = instance(kBeta, {kBeta, kSelf});
  loading.ranks[0].memory_bytes = 350;
  bench.hear(loading);
  large.options.only_nodes = {kBeta};
  EXPECT_EQ(bench.reducer.preview(large).error().code, ErrorCode::out_of_memory);
}

TEST(Reducer, FactsOfOthersThatBreakTheRulesAreDropped) {
  Bench bench;
  bench.join(node(kBeta));
  InstanceFact foreign = instance(kGamma, {kGamma, kSelf});
  bench.run(FactHeard{kBeta, "instance/" + kInstance, to_text(to_json(foreign))});
  bench.run(FactHeard{kBeta, "instance/2222222222222222", to_text(to_json(instance(kBeta, {kBeta, kSelf})))});
  bench.run(FactHeard{kBeta, "instance/" + kInstance, "{"});
  bench.run(FactHeard{kGamma, "node", to_text(to_json(node(kGamma)))});  // who never joined
  bench.run(FactHeard{kBeta, "node", to_text(to_json(node(kGamma)))});
  EXPECT_TRUE(bench.reducer.view().instances().empty());
  EXPECT_EQ(bench.reducer.view().members().size(), 2u);
  EXPECT_EQ(bench.reducer.view().node(kBeta)->id, kBeta);
  bench.message(kBeta, kPlaceTopic, to_json(instance(kBeta, {kBeta})));  // not ours to own
  EXPECT_TRUE(bench.reducer.view().own_instances().empty());
}

TEST(Reducer, ProgressIsReportedNowAndThenButStatesAtOnce) {
  Bench bench;
  bench.tick(seconds(1));
  bench.message(kSelf, kPlaceTopic, to_json(instance(kSelf, {kSelf})));
  int reports = 0;
  for (int i = 0; i < 100; ++i) {
    bench.now += milliseconds(10);
    bench.run(WorkerReported{{kInstance, 1, 0}, WorkerState::loading, static_cast<float>(i) / 100, {}, {}});
    for (const PublishFact& fact : bench.all<PublishFact>()) reports += fact.name == "node" ? 1 : 0;
  }
  EXPECT_LE(reports, 6);
  EXPECT_GE(reports, 3);
  bench.worker(WorkerState::loaded);
  EXPECT_EQ(bench.only<PublishFact>().name, "node");
}

TEST(Reducer, LeavingEndsEverything) {
  Bench bench;
  bench.run(PlaceAsked{1, request(), kInstance, ""});
  bench.join(node(kBeta));
  InstanceFact other = instance(kBeta, {kBeta, kSelf});
  other.id = "2222222222222222";
  bench.hear(other);
  bench.run(Leaving{});
  EXPECT_EQ(bench.only<PlaceDone>().result.error().code, ErrorCode::cancelled);
  EXPECT_EQ(bench.all<StopWorker>().size(), 2u);
  EXPECT_TRUE(bench.reducer.view().self().workers.empty());
  bench.hear(other);
  EXPECT_TRUE(bench.actions.empty());
  bench.run(PlaceAsked{2, request(), "3333333333333333", ""});
  EXPECT_EQ(bench.only<PlaceDone>().result.error().code, ErrorCode::cancelled);
  EXPECT_EQ(bench.actions.size(), 1u);
}

}  // namespace
}  // namespace shoal::cluster
