#include "worker/messages.h"

#include <functional>
#include <gtest/gtest.h>

#include "base/limits.h"

namespace shoal::worker {
namespace {

LoadRequest load_request() {
  return {.model_path = "/models/größe.gguf",
          .stage = {2, 7, false, true},
          .shard = {.rank = 1, .count = 3, .shares = {500, 300, 200}},
          .kv = {engine::KvType::q8, 64, 1000, 12},
          .threads = 5,
          .isa = "avx2",
          .instance = "model-1",
          .epoch = 9,
          .secret = "tell nobody",
          .rank = 1,
          .rank_count = 4,
          .peers = {.group = {0, 1, 2}, .previous = {}, .next = {}, .calls = {2}, .called_by = {0}},
          .wire = runtime::WireFormat::bf16,
          .listen_addresses = {"0.0.0.0", "::1"}};
}

ByteView body_of(const Bytes& message) {
  EXPECT_EQ(decode_length(ByteView(message).first(kLengthBytes)).value(), message.size() - kLengthBytes);
  return ByteView(message).subspan(kLengthBytes);
}

template <class T>
T from_node(const NodeMessage& message) {
  return std::get<T>(decode_node_message(body_of(encode(message))).value());
}
template <class T>
T from_worker(const WorkerMessage& message) {
  return std::get<T>(decode_worker_message(body_of(encode(message))).value());
}

TEST(NodeMessages, PeersThatContradictEachOtherAreRefused) {
  const std::vector<std::function<void(LoadRequest&)>> changes = {
      [](LoadRequest& load) { load.peers.group = {0, 2}; },      // without the rank itself
      [](LoadRequest& load) { load.peers.group = {1, 0, 2}; },   // out of order
      [](LoadRequest& load) { load.peers.group = {0, 1, 9}; },   // no such rank
      [](LoadRequest& load) { load.peers.calls = {}; },          // no Link to rank 2
      [](LoadRequest& load) { load.peers.called_by = {0, 0}; },  // two from rank 0
      [](LoadRequest& load) { load.peers.next = 3; },            // whom nobody calls
      [](LoadRequest& load) { load.peers.previous = 7; },
      [](LoadRequest& load) { load.shard.rank = 2; },                 // another place in the group
      [](LoadRequest& load) { load.shard.shares = {500, 500}; },      // of too few
      [](LoadRequest& load) { load.shard.shares = {500, 0, 500}; }};  // nothing to do
  EXPECT_TRUE(decode_node_message(body_of(encode(NodeMessage(load_request())))).has_value());
  for (size_t i = 0; i < changes.size(); ++i) {
    LoadRequest load = load_request();
    changes[i](load);
    EXPECT_FALSE(decode_node_message(body_of(encode(NodeMessage(load)))).has_value()) << i;
  }
}

TEST(NodeMessages, ComeBackAsTheyWereSent) {
  LoadRequest sent = load_request();
  auto load = from_node<LoadRequest>(sent);
  EXPECT_EQ(load.model_path, sent.model_path);
  EXPECT_EQ(load.stage.first_layer, 2u);
  EXPECT_EQ(load.stage.end_layer, 7u);
  EXPECT_FALSE(load.stage.embeds);
  EXPECT_TRUE(load.stage.heads);
  EXPECT_EQ(load.shard.rank, 1u);
  EXPECT_EQ(load.shard.count, 3u);
  EXPECT_EQ(load.kv.type, engine::KvType::q8);
  EXPECT_EQ(load.kv.page_tokens, 64u);
  EXPECT_EQ(load.kv.page_count, 1000u);
  EXPECT_EQ(load.kv.state_slots, 12u);
  EXPECT_EQ(load.threads, 5u);
  EXPECT_EQ(load.isa, "avx2");
  EXPECT_EQ(load.instance, "model-1");
  EXPECT_EQ(load.epoch, 9u);
  EXPECT_EQ(load.secret, "tell nobody");
  EXPECT_EQ(load.rank, 1u);
  EXPECT_EQ(load.rank_count, 4u);
  EXPECT_EQ(load.shard.shares, (std::vector<uint32_t>{500, 300, 200}));
  EXPECT_EQ(load.peers.group, (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_FALSE(load.peers.previous || load.peers.next);
  EXPECT_EQ(load.peers.calls, std::vector<uint32_t>{2});
  EXPECT_EQ(load.peers.called_by, std::vector<uint32_t>{0});
  EXPECT_EQ(load.wire, runtime::WireFormat::bf16);
  EXPECT_EQ(load.listen_addresses, sent.listen_addresses);

  auto connect = from_node<ConnectRequest>(ConnectRequest{3, {{"10.0.0.1", 4000}, {"fe80::1", 65535}}});
  EXPECT_EQ(connect.peer, 3u);
  ASSERT_EQ(connect.endpoints.size(), 2u);
  EXPECT_EQ(connect.endpoints[1].address, "fe80::1");
  EXPECT_EQ(connect.endpoints[1].port, 65535);

  runtime::Step step;
  step.id = 77;
  step.epoch = 3;
  step.sequences.push_back({.sequence = 8, .row_count = 3});
  step.token_ids = {1, 2, 3};
  EXPECT_EQ(from_node<runtime::Step>(step).token_ids, step.token_ids);
  EXPECT_EQ(from_node<runtime::Step>(step).id, 77u);
  from_node<ShutDown>(ShutDown{});
}

TEST(WorkerMessages, ComeBackAsTheyWereSent) {
  EXPECT_EQ(from_worker<Listening>(Listening{4711}).port, 4711);
  EXPECT_EQ(from_worker<Progress>(Progress{0.25F}).fraction, 0.25F);
  auto loaded = from_worker<Loaded>(Loaded{{1ull << 40, 2, 3}});
  EXPECT_EQ(loaded.memory.weight_bytes, 1ull << 40);
  EXPECT_EQ(loaded.memory.kv_bytes, 2u);
  EXPECT_EQ(loaded.memory.scratch_bytes, 3u);
  from_worker<Ready>(Ready{});
  auto failed = from_worker<Failed>(Failed{{ErrorCode::out_of_memory, "KV cache: 3 GiB", "use less"}});
  EXPECT_EQ(failed.error.code, ErrorCode::out_of_memory);
  EXPECT_EQ(failed.error.message, "KV cache: 3 GiB");
  EXPECT_EQ(failed.error.hint, "use less");
  runtime::StepResult result;
  result.id = 5;
  result.stage_milliseconds = {1.5F, 2.5F};
  EXPECT_EQ(from_worker<runtime::StepResult>(result).stage_milliseconds, result.stage_milliseconds);
}

TEST(NodeMessages, EveryTruncationAndEveryExtraByteIsRefused) {
  Bytes whole = encode(load_request());
  ByteView body = body_of(whole);
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(decode_node_message(body.first(size))) << size << " of " << body.size() << " bytes";
  }
  Bytes longer(body.begin(), body.end());
  longer.push_back(std::byte{0});
  auto refused = decode_node_message(longer);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::malformed);
}

TEST(WorkerMessages, EveryTruncationIsRefused) {
  for (const WorkerMessage& message :
       {WorkerMessage(Listening{1}), WorkerMessage(Progress{0.5F}), WorkerMessage(Loaded{}),
        WorkerMessage(Ready{}), WorkerMessage(Failed{{ErrorCode::io, "text", "hint"}})}) {
    Bytes whole = encode(message);
    ByteView body = body_of(whole);
    for (size_t size = 0; size < body.size(); ++size) {
      EXPECT_FALSE(decode_worker_message(body.first(size)))
          << "kind " << message.index() << ", " << size << " bytes";
    }
  }
}

TEST(NodeMessages, ValuesOutOfRangeAreRefused) {
  LoadRequest rank = load_request();
  rank.rank = 3;
  EXPECT_FALSE(decode_node_message(body_of(encode(rank))));
  LoadRequest type = load_request();
  type.kv.type = static_cast<engine::KvType>(7);
  EXPECT_FALSE(decode_node_message(body_of(encode(type))));
  LoadRequest slots = load_request();
  slots.kv.state_slots = limits::kMaxActiveSequences + 1;
  EXPECT_FALSE(decode_node_message(body_of(encode(slots))));
  EXPECT_FALSE(decode_node_message(Bytes{std::byte{99}}));
  EXPECT_FALSE(decode_worker_message(Bytes{std::byte{0}}));
  EXPECT_FALSE(decode_worker_message(body_of(encode(Progress{7}))));
}

TEST(MessageLength, IsBounded) {
  auto decode = [](uint32_t length) { return decode_length(std::as_bytes(std::span(&length, 1))); };
  EXPECT_EQ(decode(17).value(), 17u);
  EXPECT_EQ(decode(0).error().code, ErrorCode::malformed);
  EXPECT_EQ(decode(UINT32_MAX).error().code, ErrorCode::limit_exceeded);
  EXPECT_FALSE(decode_length(Bytes(3)));
}

}  // namespace
}  // namespace shoal::worker
