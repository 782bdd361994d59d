#include "cluster/facts.h"

#include <fmt/format.h>
#include <functional>
#include <gtest/gtest.h>
#include <random>

namespace shoal::cluster {
namespace {

NodeFact full_node() {
  NodeFact fact;
  fact.id = "0123456789abcdef";
  fact.name = "küche";
  fact.version = "0.1.0";
  fact.api_url = "http://10.0.0.1:8000";
  fact.cpu = "a CPU";
  fact.cores = 8;
  fact.total_memory_bytes = 1ull << 40;
  fact.free_memory_bytes = UINT64_MAX;
  fact.decode_bytes_per_second = 12.5e9;
  fact.prefill_flops_per_second = 1e12;
  fact.addresses = {"10.0.0.1", "fd00::1"};
  fact.models = {{"demo", "d1", "llama", 123}};
  fact.workers = {{"fedcba9876543210", 3, 1, WorkerState::failed, 0.5f, 4711,
                   Error{ErrorCode::out_of_memory, "no room", "add some"}}};
  return fact;
}

InstanceFact full_instance() {
  InstanceFact fact;
  fact.id = "fedcba9876543210";
  fact.model = "demo";
  fact.digest = "d1";
  fact.epoch = 3;
  fact.owner = "0123456789abcdef";
  fact.state = InstanceState::failed;
  fact.error = Error{ErrorCode::unavailable, "node beta left", ""};
  fact.ranks = {{"0123456789abcdef", 0, 3, 1000, 600},
                {"00000000000000bb", 0, 3, 800, 400},
                {"00000000000000aa", 3, 4, 500}};
  fact.layer_count = 4;
  fact.context_tokens = 4096;
  fact.kv_page_tokens = 32;
  fact.kv_page_count = 128;
  fact.state_slots = 16;
  fact.wire = planner::WireFormat::bf16;
  fact.secret = "s3cret";
  fact.predicted_tokens_per_second = 12.5;
  return fact;
}

Result<NodeFact> read_node(std::string_view text) {
  SHOAL_TRY(JsonObject object, parse_json_object(text, "test"));
  return node_fact_from_json(object);
}
Result<InstanceFact> read_instance(std::string_view text) {
  SHOAL_TRY(JsonObject object, parse_json_object(text, "test"));
  return instance_fact_from_json(object);
}

TEST(Facts, WhatOthersWouldRefuseDoesNotTakeTheWholeFactAlong) {
  NodeFact fact = full_node();
  fact.workers[0].error = Error{ErrorCode::malformed, std::string(10000, 'x'), "tensor [\xff] of \xc3"};
  fact.models.push_back({std::string(600, 'n'), "d2", "llama", 1});
  fact.models.push_back({"model\xff", "d3", "llama", 1});
  const auto read = read_node(to_text(to_json(fact)));
  ASSERT_TRUE(read.has_value()) << read.error().text();
  ASSERT_TRUE(read->workers.at(0).error.has_value());
  EXPECT_EQ(read->workers[0].error->message, std::string(4096, 'x'));
  EXPECT_EQ(read->workers[0].error->hint, "tensor [?] of ?");
  ASSERT_EQ(read->models.size(), 1u);
  EXPECT_EQ(read->models[0].name, "demo");
  InstanceFact instance = full_instance();
  instance.error = Error{ErrorCode::unavailable, "rank 0 on node küche failed", ""};
  EXPECT_EQ(read_instance(to_text(to_json(instance)))->error->message, "rank 0 on node küche failed");
}

// What a change to a good fact's JSON does to its reading.
Result<InstanceFact> changed_instance(const std::function<void(JsonObject&)>& change) {
  JsonObject object = to_json(full_instance());
  change(object);
  return read_instance(to_text(object));
}
Result<NodeFact> changed_node(const std::function<void(JsonObject&)>& change) {
  JsonObject object = to_json(full_node());
  change(object);
  return read_node(to_text(object));
}

TEST(Facts, SurviveTheirJsonForm) {
  auto node = read_node(to_text(to_json(full_node())));
  ASSERT_TRUE(node.has_value()) << node.error().text();
  EXPECT_EQ(node->name, "küche");
  EXPECT_EQ(node->free_memory_bytes, static_cast<uint64_t>(INT64_MAX));  // JSON integers are signed
  EXPECT_EQ(node->addresses.size(), 2u);
  EXPECT_EQ(node->models[0].digest, "d1");
  EXPECT_EQ(node->workers[0].state, WorkerState::failed);
  EXPECT_EQ(node->workers[0].error->code, ErrorCode::out_of_memory);
  EXPECT_EQ(to_text(to_json(*node)), to_text(to_json(*read_node(to_text(to_json(*node))))));

  auto instance = read_instance(to_text(to_json(full_instance())));
  ASSERT_TRUE(instance.has_value()) << instance.error().text();
  EXPECT_EQ(to_text(to_json(*instance)), to_text(to_json(full_instance())));
}

TEST(Facts, OfNewerVersionsAreReadWithoutWhatIsUnknown) {
  EXPECT_TRUE(changed_node([](JsonObject& fact) { fact["gpus"] = JsonArray{1, 2}; }).has_value());
  EXPECT_TRUE(read_node(R"({"id":"0123456789abcdef"})").has_value());
  auto code = changed_instance(
      [](JsonObject& fact) { fact["error"] = JsonObject{{"code", "new"}, {"message", "m"}}; });
  ASSERT_TRUE(code.has_value());
  EXPECT_EQ(code->error->code, ErrorCode::internal);
}

TEST(Facts, ThatBreakTheirFormAreErrors) {
  auto node_changes = std::vector<std::function<void(JsonObject&)>>{
      [](JsonObject& fact) { fact.erase("id"); },
      [](JsonObject& fact) { fact["id"] = "0123456789ABCDEF"; },
      [](JsonObject& fact) { fact["id"] = "../../etc/passwd"; },
      [](JsonObject& fact) { fact["name"] = std::string(10'000, 'x'); },
      [](JsonObject& fact) { fact["name"] = 7; },
      [](JsonObject& fact) { fact["free_memory_bytes"] = -1; },
      [](JsonObject& fact) { fact["decode_bytes_per_second"] = -1.0; },
      [](JsonObject& fact) { fact["addresses"] = JsonArray(1000, "10.0.0.1"); },
      [](JsonObject& fact) { fact["addresses"] = JsonArray{JsonObject{}}; },
      [](JsonObject& fact) { fact["models"] = JsonArray{1}; },
      [](JsonObject& fact) { fact["workers"].as_array()[0].as_object()["state"] = "dancing"; },
      [](JsonObject& fact) { fact["workers"].as_array()[0].as_object()["port"] = 65536; },
      [](JsonObject& fact) { fact["workers"].as_array()[0].as_object()["instance"] = "x"; },
  };
  for (size_t i = 0; i < node_changes.size(); ++i)
    EXPECT_FALSE(changed_node(node_changes[i]).has_value()) << i;
  auto instance_changes = std::vector<std::function<void(JsonObject&)>>{
      [](JsonObject& fact) { fact["state"] = "asleep"; },
      [](JsonObject& fact) { fact.erase("state"); },
      [](JsonObject& fact) { fact["ranks"] = JsonArray{}; },
      [](JsonObject& fact) { fact["ranks"] = JsonArray(300, fact["ranks"].as_array()[0]); },
      [](JsonObject& fact) { fact["ranks"].as_array().pop_back(); },
      [](JsonObject& fact) { fact["ranks"].as_array()[1].as_object()["first_layer"] = 2; },
      [](JsonObject& fact) { fact["ranks"].as_array()[1].as_object()["end_layer"] = 2; },
      [](JsonObject& fact) { fact["ranks"].as_array()[2].as_object()["first_layer"] = 0; },
      [](JsonObject& fact) { fact["ranks"].as_array()[1].as_object()["share"] = 0; },
      [](JsonObject& fact) { fact["ranks"].as_array()[1].as_object()["share"] = 1001; },
      [](JsonObject& fact) {  // nine of one stage
        JsonArray& ranks = fact["ranks"].as_array();
        for (int i = 0; i < 7; ++i) {
          ranks.insert(ranks.begin() + 1, ranks[1]);
          ranks[1].as_object()["node"] = fmt::format("{:016x}", i + 1);
        }
      },
      [](JsonObject& fact) { fact["ranks"].as_array()[1].as_object()["node"] = "0123456789abcdef"; },
      [](JsonObject& fact) { fact["layer_count"] = 5; },
      [](JsonObject& fact) { fact["epoch"] = 1ll << 40; },
      [](JsonObject& fact) { fact["wire"] = "f8"; },
      [](JsonObject& fact) { fact["error"] = "text"; },
  };
  for (size_t i = 0; i < instance_changes.size(); ++i)
    EXPECT_FALSE(changed_instance(instance_changes[i]).has_value()) << i;
}

TEST(Facts, MutatedBytesNeverDoMoreThanFail) {
  std::mt19937 random(11);
  std::string good[] = {to_text(to_json(full_node())), to_text(to_json(full_instance()))};
  size_t failed = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = good[round % 2];
    for (uint32_t i = 0; i < 1 + random() % 4; ++i)
      text[random() % text.size()] = static_cast<char>(random());
    bool read = round % 2 == 0 ? read_node(text).has_value() : read_instance(text).has_value();
    failed += read ? 0 : 1;
  }
  EXPECT_GT(failed, 1000u);
}

}  // namespace
}  // namespace shoal::cluster
