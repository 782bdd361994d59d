// Worlds of real processes on this machine: the test program starts itself as `worker --fd N`.
#include <boost/asio/io_context.hpp>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/process.h"
#include "base/socket.h"
#include "base/system.h"
#include "model/decoder_engine.h"
#include "runtime/fixture_models.h"
#include "worker/worker_client.h"

namespace shoal::worker {
namespace {

constexpr const char* kModel = "models/demo/shoal-demo-q8_0.gguf";
constexpr Duration kPatience = seconds(60);

// What one worker said.
class Recorder : public WorkerListener {
 public:
  void on_listening(uint16_t listening_port) override { port = listening_port; }
  void on_progress(float fraction) override { progress.push_back(fraction); }
  void on_loaded(const engine::EngineMemory& engine_memory) override { memory = engine_memory; }
  void on_ready() override { ready = true; }
  void on_step_result(runtime::StepResult result) override { results.push_back(std::move(result)); }
  void on_failed(const Error& error) override {
    EXPECT_FALSE(exit.has_value()) << "on_exit must be last";
    failure = error;
  }
  void on_exit(const std::string& how) override {
    EXPECT_FALSE(exit.has_value()) << "on_exit twice";
    exit = how;
  }

  uint16_t port = 0;
  std::vector<float> progress;
  std::optional<engine::EngineMemory> memory;
  bool ready = false;
  std::vector<runtime::StepResult> results;
  std::optional<Error> failure;
  std::optional<std::string> exit;
};

struct Rank {
  std::shared_ptr<Recorder> recorder = std::make_shared<Recorder>();
  std::unique_ptr<WorkerClient> client;
};

class WorkerProcess : public testing::Test {
 protected:
  // Runs the callbacks until `done`, or fails the test.
  void wait_for(const std::function<bool()>& done, const char* what) {
    TimePoint end = std::chrono::steady_clock::now() + kPatience;
    while (!done()) {
      io.restart();
      io.run_for(std::chrono::milliseconds(20));
      if (std::chrono::steady_clock::now() < end) continue;
      for (const Rank& rank : ranks) {
        if (rank.recorder->failure) ADD_FAILURE() << rank.recorder->failure->text();
      }
      FAIL() << "waited in vain for " << what;
    }
  }

  Rank start() {
    Rank rank;
    rank.client = WorkerClient::start(io, {executable_path().string(), "test worker"}, rank.recorder).value();
    return rank;
  }

  static LoadRequest request(uint32_t rank, uint32_t rank_count, const RankPeers& peers) {
    return {
        .model_path = runtime::open_model(kModel).checkpoint.path().string(),
        .stage = {},
        .shard = {.rank = static_cast<uint32_t>(std::ranges::find(peers.group, rank) - peers.group.begin()),
                  .count = static_cast<uint32_t>(peers.group.size())},
        .kv = {.type = engine::KvType::f32, .page_tokens = 16, .page_count = 64},
        .threads = 1,
        .isa = "",
        .instance = "demo",
        .epoch = 4,
        .secret = "between us",
        .rank = rank,
        .rank_count = rank_count,
        .peers = peers,
        .listen_addresses = {"127.0.0.1"}};
  }

  // Stage s has sizes[s] ranks.
  static std::vector<LoadRequest> requests(const std::vector<uint32_t>& sizes) {
    const auto stages = static_cast<uint32_t>(sizes.size());
    std::vector<uint32_t> leaders = {0};
    for (const uint32_t size : sizes) leaders.push_back(leaders.back() + size);
    const std::vector<engine::StageRange> ranges =
        model::even_stages(runtime::open_model(kModel).spec, stages).value();
    std::vector<LoadRequest> loads;
    for (uint32_t stage = 0; stage < stages; ++stage) {
      RankPeers group{.group = {}};
      for (uint32_t rank = leaders[stage]; rank < leaders[stage + 1]; ++rank) group.group.push_back(rank);
      for (const uint32_t rank : group.group) {
        RankPeers peers = group;
        for (const uint32_t other : group.group) {
          if (other != rank) (other > rank ? peers.calls : peers.called_by).push_back(other);
        }
        if (rank == leaders[stage] && stages > 1) {
          peers.calls.push_back(*(peers.next = leaders[(stage + 1) % stages]));
          peers.called_by.push_back(*(peers.previous = leaders[(stage + stages - 1) % stages]));
        }
        loads.push_back(request(rank, leaders.back(), peers));
        loads.back().stage = ranges[stage];
      }
    }
    return loads;
  }

  void start_world(
      const std::vector<uint32_t>& sizes,
      const std::function<void(LoadRequest&)>& change = [](LoadRequest&) {}) {
    stage_count = sizes.size();
    const std::vector<LoadRequest> loads = requests(sizes);
    for (LoadRequest load : loads) {
      ranks.push_back(start());
      change(load);
      ranks.back().client->load(load);
    }
    auto all_listen = [&] {
      return std::ranges::all_of(loads, [&](const LoadRequest& load) {
        return load.peers.called_by.empty() || ranks[load.rank].recorder->port != 0;
      });
    };
    wait_for(all_listen, "every rank that is called to listen");
    for (const LoadRequest& load : loads) {
      for (const uint32_t peer : load.peers.calls) {
        ranks[load.rank].client->connect({peer, {{"127.0.0.1", ranks[peer].recorder->port}}});
      }
    }
  }
  void start_world(uint32_t rank_count, const std::function<void(LoadRequest&)>& change) {
    start_world(std::vector<uint32_t>(rank_count, 1), change);
  }
  void start_ready_world(const std::vector<uint32_t>& sizes) {
    start_world(sizes);
    auto all_ready = [&] {
      return std::ranges::all_of(ranks, [](const Rank& r) { return r.recorder->ready; });
    };
    wait_for(all_ready, "every rank to be ready");
  }
  void start_ready_world(uint32_t rank_count) { start_ready_world(std::vector<uint32_t>(rank_count, 1)); }

  // The next token after `rows` of one sequence, alone in its step.
  int32_t next_token(runtime::SequenceDriver& driver, std::span<const int32_t> rows, uint64_t id) {
    runtime::Step step;
    step.id = id;
    step.epoch = 4;
    driver.add_rows(step, rows, true, 16);
    Recorder& first = *ranks[0].recorder;
    size_t before = first.results.size();
    ranks[0].client->submit(step);
    wait_for([&] { return first.results.size() > before; }, "a step result");
    if (first.results.size() == before) return -1;
    EXPECT_EQ(first.results.back().id, id);
    EXPECT_EQ(first.results.back().stage_milliseconds.size(), stage_count);
    return first.results.back().tokens.at(0).sampled.token;
  }

  std::vector<int32_t> generate(std::span<const int32_t> prompt, size_t count) {
    runtime::SequenceDriver driver(1, 0);
    std::vector<int32_t> rows(prompt.begin(), prompt.end());
    std::vector<int32_t> answer;
    while (answer.size() < count && !HasFatalFailure()) {
      answer.push_back(next_token(driver, rows, answer.size()));
      rows = {answer.back()};
    }
    return answer;
  }

  static std::vector<int32_t> expected(std::span<const int32_t> prompt, size_t count) {
    runtime::LoadedModel model = runtime::open_model(kModel);
    auto pipeline = runtime::must(
        runtime::LocalPipeline::load(model.checkpoint, model.spec, runtime::pipeline_options()));
    return runtime::generate(pipeline, prompt, count);
  }

  boost::asio::io_context io;
  std::vector<Rank> ranks;
  size_t stage_count = 0;
};

const std::vector<int32_t> kPrompt = {5, 17, 200, 31, 44, 9, 120};

TEST_F(WorkerProcess, WorldsOfOneTwoAndThreeRanksChooseTheSameTokens) {
  const auto tokens = expected(kPrompt, 24);
  for (uint32_t rank_count : {1, 2, 3}) {
    ranks.clear();
    start_ready_world(rank_count);
    EXPECT_EQ(generate(kPrompt, 24), tokens) << rank_count << " ranks";
    for (const Rank& rank : ranks) {
      EXPECT_FALSE(rank.recorder->failure) << rank.recorder->failure->text();
      ASSERT_FALSE(rank.recorder->progress.empty());
      EXPECT_EQ(rank.recorder->progress.back(), 1.0F);
      ASSERT_TRUE(rank.recorder->memory.has_value());
      EXPECT_GT(rank.recorder->memory->weight_bytes, 0u);
    }
  }
}

TEST_F(WorkerProcess, RanksThatShareAStageChooseTheTokensOfOne) {
  const auto tokens = expected(kPrompt, 24);
  for (const std::vector<uint32_t>& sizes : {std::vector<uint32_t>{2}, {3}, {2, 1}, {1, 2}, {2, 2}}) {
    ranks.clear();
    start_ready_world(sizes);
    EXPECT_EQ(generate(kPrompt, 24), tokens) << testing::PrintToString(sizes);
    for (const Rank& rank : ranks) EXPECT_FALSE(rank.recorder->failure) << rank.recorder->failure->text();
  }
}

TEST_F(WorkerProcess, AKilledRankOfAStageEndsTheOthersAmidWork) {
  start_ready_world({3});
  EXPECT_EQ(generate(kPrompt, 2), expected(kPrompt, 2));
  ::kill(ranks[2].client->pid(), SIGKILL);
  wait_for([&] { return ranks[2].recorder->exit.has_value(); }, "the killed rank to end");
  runtime::SequenceDriver driver(2, 16);
  runtime::Step step;
  step.id = 2;
  step.epoch = 4;
  driver.add_rows(step, kPrompt, true, 16);
  ranks[0].client->submit(step);
  wait_for([&] { return ranks[0].recorder->exit && ranks[1].recorder->exit; }, "the others to end");
  EXPECT_EQ(ranks[0].recorder->failure.value().code, ErrorCode::unavailable);
  EXPECT_EQ(ranks[0].recorder->results.size(), 2u);
}

TEST_F(WorkerProcess, SeveralStepsInFlightComeBackInOrderWithTheRightTokens) {
  start_ready_world(3);
  constexpr int kSequences = 4;
  constexpr int kRounds = 8;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<runtime::SequenceDriver> drivers;
  std::vector<std::vector<int32_t>> answers(kSequences);
  std::vector<std::vector<int32_t>> rows;
  for (int i = 0; i < kSequences; ++i) {
    prompts.push_back({5 + i, 17, 200, 31});
    rows.push_back(prompts.back());
    drivers.emplace_back(static_cast<runtime::SequenceId>(i + 1), static_cast<uint32_t>(i * 16));
  }
  Recorder& first = *ranks[0].recorder;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kSequences; ++i) {
      runtime::Step step;
      step.id = static_cast<uint64_t>(round * kSequences + i);
      step.epoch = 4;
      drivers[i].add_rows(step, rows[i], true, 16);
      ranks[0].client->submit(step);
    }
    wait_for([&] { return first.results.size() == static_cast<size_t>((round + 1) * kSequences); },
             "a round");
    for (int i = 0; i < kSequences; ++i) {
      const auto& result = first.results.at(static_cast<size_t>(round * kSequences + i));
      EXPECT_EQ(result.id, static_cast<uint64_t>(round * kSequences + i));
      answers[i].push_back(result.tokens.at(0).sampled.token);
      rows[i] = {answers[i].back()};
    }
  }
  for (int i = 0; i < kSequences; ++i)
    EXPECT_EQ(answers[i], expected(prompts[i], kRounds)) << "sequence " << i;
}

TEST_F(WorkerProcess, NobodyListensOnceTheRingIsClosed) {
  start_ready_world(2);
  for (const Rank& rank : ranks) {
    const SocketAddress address = SocketAddress::parse("127.0.0.1", rank.recorder->port).value();
    EXPECT_FALSE(connect_tcp(address, std::chrono::steady_clock::now() + seconds(2)).has_value());
  }
  EXPECT_EQ(generate(kPrompt, 2), expected(kPrompt, 2));
}

TEST_F(WorkerProcess, AStepOfAnotherEpochIsDropped) {
  start_ready_world(2);
  runtime::Step stale;
  stale.id = 900;
  stale.epoch = 3;
  ranks[0].client->submit(stale);
  runtime::SequenceDriver driver(1, 0);
  EXPECT_EQ(next_token(driver, kPrompt, 1), expected(kPrompt, 1).at(0));
  EXPECT_EQ(ranks[0].recorder->results.size(), 1u);
}

TEST_F(WorkerProcess, AKilledRankIsNamedByItsNeighboursAndEveryWorkerEnds) {
  start_ready_world(3);
  EXPECT_EQ(generate(kPrompt, 2), expected(kPrompt, 2));
  for (uint64_t i = 0; i < 3; ++i) {  // so that it dies amid work
    runtime::SequenceDriver driver(10 + i, static_cast<uint32_t>(16 + 16 * i));
    runtime::Step step;
    step.id = 100 + i;
    step.epoch = 4;
    driver.add_rows(step, std::vector<int32_t>(200, 7), true, 16);
    ranks[0].client->submit(step);
  }
  TimePoint start = std::chrono::steady_clock::now();
  ::kill(ranks[1].client->pid(), SIGKILL);
  auto all_gone = [&] {
    return std::ranges::all_of(ranks, [](const Rank& r) { return r.recorder->exit.has_value(); });
  };
  wait_for(all_gone, "every worker to end");
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(20));
  EXPECT_EQ(ranks[1].recorder->exit, "signal 9 (Killed)");
  EXPECT_FALSE(ranks[1].recorder->failure);
  for (uint32_t i : {0, 2}) {
    ASSERT_TRUE(ranks[i].recorder->failure.has_value()) << "rank " << i;
    EXPECT_EQ(ranks[i].recorder->failure->code, ErrorCode::unavailable);
    EXPECT_NE(ranks[i].recorder->failure->message.find("link to rank "), std::string::npos)
        << ranks[i].recorder->failure->message;
    EXPECT_EQ(ranks[i].recorder->exit, "exit code 1");
  }
}

TEST_F(WorkerProcess, AStoppedRankIsLostAfterALease) {
  start_ready_world(2);
  ::kill(ranks[1].client->pid(), SIGSTOP);
  wait_for([&] { return ranks[0].recorder->exit.has_value(); }, "rank 0 to end");
  ASSERT_TRUE(ranks[0].recorder->failure.has_value());
  EXPECT_EQ(ranks[0].recorder->failure->code, ErrorCode::unavailable);
  EXPECT_NE(ranks[0].recorder->failure->message.find("rank 1"), std::string::npos)
      << ranks[0].recorder->failure->message;
}

TEST_F(WorkerProcess, AMissingModelIsNotFound) {
  start_world(1, [](LoadRequest& load) { load.model_path = "/no/such/model.gguf"; });
  wait_for([&] { return ranks[0].recorder->exit.has_value(); }, "the end");
  ASSERT_TRUE(ranks[0].recorder->failure.has_value());
  EXPECT_EQ(ranks[0].recorder->failure->code, ErrorCode::not_found) << ranks[0].recorder->failure->text();
  EXPECT_EQ(ranks[0].recorder->exit, "exit code 1");
}

TEST_F(WorkerProcess, ARankWithAnotherSecretIsRefused) {
  start_world(2, [](LoadRequest& load) { load.secret = load.rank == 0 ? "between us" : "a guess"; });
  wait_for([&] { return ranks[0].recorder->exit.has_value(); }, "rank 0 to end");
  ASSERT_TRUE(ranks[0].recorder->failure.has_value());
  EXPECT_EQ(ranks[0].recorder->failure->code, ErrorCode::unavailable) << ranks[0].recorder->failure->text();
  EXPECT_NE(ranks[0].recorder->failure->message.find("rank 1"), std::string::npos)
      << ranks[0].recorder->failure->message;
  EXPECT_FALSE(ranks[0].recorder->ready);
}

TEST_F(WorkerProcess, ABadStepEndsTheWorkerWithAnError) {
  start_ready_world(1);
  runtime::Step step;
  step.id = 1;
  step.epoch = 4;
  step.token_ids = {1};
  step.sequences.push_back({.sequence = 99, .row_count = 1});
  ranks[0].client->submit(step);
  wait_for([&] { return ranks[0].recorder->exit.has_value(); }, "the end");
  ASSERT_TRUE(ranks[0].recorder->failure.has_value());
  EXPECT_EQ(ranks[0].recorder->failure->code, ErrorCode::invalid_argument);
}

TEST_F(WorkerProcess, ShutDownEndsEveryRankWithoutAFailure) {
  start_ready_world(2);
  for (Rank& rank : ranks) rank.client->shut_down();
  auto all_gone = [&] {
    return std::ranges::all_of(ranks, [](const Rank& r) { return r.recorder->exit.has_value(); });
  };
  wait_for(all_gone, "both to end");
  for (const Rank& rank : ranks) {
    EXPECT_EQ(rank.recorder->exit, "exit code 0");
    EXPECT_FALSE(rank.recorder->failure) << rank.recorder->failure->text();
  }
}

TEST_F(WorkerProcess, ADestroyedClientLeavesNoProcessAndCallsNobody) {
  Rank rank = start();
  pid_t pid = rank.client->pid();
  rank.client->load(requests({1}).front());
  rank.client.reset();
  wait_for([&] { return ::kill(pid, 0) != 0; }, "the process to be reaped");
  EXPECT_FALSE(rank.recorder->exit.has_value());
}

}  // namespace
}  // namespace shoal::worker

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "worker") == 0) return shoal::worker::run_worker(std::atoi(argv[3]));
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
